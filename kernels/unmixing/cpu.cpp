// Batched non-negative unmixing: spectra are independent, so threads share them out in any way.
#include <nanobind/ndarray.h>

#include "native.h"
#include "threads.h"
#include "unmixing/wide.h"

namespace nb = nanobind;

namespace {

using namespace lithostream::unmixing;
using lithostream::share;

constexpr int64_t kChunk = 1024, kWideChunk = 16;  // problems

struct ExactRunner {
    const Batch& batch;
    void run(int64_t first, int64_t last) const {
        for (int64_t p = first; p < last; ++p) batch.solve_exactly(p);
    }
};

template <typename R>
void share_out(const Batch& batch, int64_t problems, int64_t chunk = kChunk) {
    const int threads = std::max(1u, std::thread::hardware_concurrency());
    chunk = std::max<int64_t>(chunk / batch.each, 1) * batch.each;  // whole tables
    const int64_t parts = std::max<int64_t>(problems / chunk, 1);
    std::vector<std::unique_ptr<R>> runners(threads);
    share(parts, threads, [&](int thread, int64_t part) {
        auto& runner = runners[thread];
        if (!runner) runner.reset(new R{batch});
        runner->run(part * chunk, part + 1 == parts ? problems : (part + 1) * chunk);
    });
}

template <int E>
void solve(const Batch& batch, int64_t problems) {
    if (batch.settings.sum_to_one)
        share_out<Runner<E, true>>(batch, problems);
    else
        share_out<Runner<E, false>>(batch, problems);
}

template <typename T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

void nnls(Array<const double> spectra, Array<const double> endmembers, Array<const double> weights,
          bool sum_to_one, double ridge, int64_t each, Array<double> abundances, Array<double> residual,
          Array<uint8_t> flags) {
    const int64_t problems = spectra.shape(0), channels = spectra.shape(1), count = abundances.shape(1);
    const Settings settings{static_cast<int>(channels), static_cast<int>(count), sum_to_one, ridge};
    const Batch batch{settings,
                      spectra.data(),
                      endmembers.data(),
                      weights.data(),
                      endmembers.ndim() == 3 ? count * channels : 0,
                      weights.ndim() == 2 ? channels : 0,
                      each,
                      abundances.data(),
                      residual.data(),
                      flags.data()};
    if (channels > kMaxChannels)
        share_out<WideRunner>(batch, problems, kWideChunk);
    else if (ridge > 0 || count > kMostSearched)
        share_out<ExactRunner>(batch, problems);
    else if (count <= 4)
        solve<4>(batch, problems);
    else if (count <= 8)
        solve<8>(batch, problems);
    else if (count <= 12)
        solve<12>(batch, problems);
    else
        solve<16>(batch, problems);
}

}  // namespace

void register_nnls(nb::module_& m) {
    m.def("nnls", &nnls, nb::arg("spectra").noconvert(), nb::arg("endmembers").noconvert(),
          nb::arg("weights").noconvert(), nb::arg("sum_to_one"), nb::arg("ridge"), nb::arg("each"),
          nb::arg("abundances").noconvert(), nb::arg("residual").noconvert(), nb::arg("flags").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
