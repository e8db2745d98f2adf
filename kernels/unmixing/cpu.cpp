// Batched non-negative unmixing: spectra are independent, so threads share them out in any way.
#include <nanobind/ndarray.h>

#include <atomic>
#include <system_error>
#include <thread>

#include "native.h"
#include "unmixing/batch.h"

namespace nb = nanobind;

namespace {

using namespace lithostream::unmixing;

constexpr int64_t kChunk = 1024;

struct ExactRunner {
    const Batch& batch;
    void run(int64_t first, int64_t last) const {
        for (int64_t p = first; p < last; ++p) batch.solve_exactly(p);
    }
};

template <typename R>
void share_out(const Batch& batch, int64_t problems) {
    std::atomic<int64_t> next{0};
    const auto work = [&] {
        const auto runner = std::make_unique<R>(R{batch});
        for (int64_t first; (first = next.fetch_add(kChunk)) < problems;)
            runner->run(first, std::min(first + kChunk, problems));
    };
    const int64_t useful = std::min<int64_t>(std::thread::hardware_concurrency(), problems / kChunk);
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < useful; ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
        // No more threads to be had: those at work do it all.
    }
    work();
    for (std::thread& other : others) other.join();
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
          bool sum_to_one, double ridge, Array<double> abundances, Array<double> residual,
          Array<uint8_t> flags) {
    const int64_t problems = spectra.shape(0), channels = spectra.shape(1), count = abundances.shape(1);
    const Settings settings{static_cast<int>(channels), static_cast<int>(count), sum_to_one, ridge};
    const Batch batch{settings,
                      spectra.data(),
                      endmembers.data(),
                      weights.data(),
                      endmembers.ndim() == 3 ? count * channels : 0,
                      weights.ndim() == 2 ? channels : 0,
                      abundances.data(),
                      residual.data(),
                      flags.data()};
    if (ridge > 0 || count > 16)
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
          nb::arg("weights").noconvert(), nb::arg("sum_to_one"), nb::arg("ridge"),
          nb::arg("abundances").noconvert(), nb::arg("residual").noconvert(), nb::arg("flags").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
