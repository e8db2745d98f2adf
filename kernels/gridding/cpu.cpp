// Inverse distance weighting on a regular grid: the grid is halved again and again, and each part inherits
// from the larger one the points that it can reach.
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gridding/worker.h"
#include "native.h"
#include "threads.h"

namespace nb = nanobind;

namespace {

using namespace lithostream::gridding;

// Cells that one thread takes at a time; of a large grid a fraction, since each job keeps its candidates.
constexpr int64_t kJobCells = 64 * 64, kJobs = 256;

struct Job {
    Block block;
    std::shared_ptr<const Candidates> candidates;
};

// Splits a block into jobs of no more than `cells`.
void collect(const Problem& problem, int64_t cells, const Job& job, std::vector<Job>& jobs) {
    if (job.block.rows * job.block.columns <= cells) {
        jobs.push_back(job);
        return;
    }
    Narrowing narrow;
    split(job.block, Box(problem.grid, job.block), [&](const Block& part) {
        auto own = std::make_shared<Candidates>();
        narrow(Box(problem.grid, part), problem.reach, *job.candidates, *own);
        const bool all = own->count == job.candidates->count;
        collect(problem, cells, {part, all ? job.candidates : own}, jobs);
    });
}

// Cells are independent, so threads share out the jobs in any way; each makes its memory when it begins.
void work_off(const Problem& problem, const std::vector<Job>& jobs) {
    const int threads = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::unique_ptr<Worker>> workers(threads);
    lithostream::share(jobs.size(), threads, [&](int thread, int64_t j) {
        auto& own = workers[thread];
        if (!own) own = std::make_unique<Worker>(problem);
        own->fill(jobs[j].block, *jobs[j].candidates);
    });
}

template <typename T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

std::shared_ptr<const Candidates> every_point(const Array<const double, 2>& points) {
    auto all = std::make_shared<Candidates>();
    all->count = points.shape(0);
    double *x = all->x.room(all->count), *y = all->y.room(all->count);
    int32_t* index = all->index.room(all->count);
    for (size_t i = 0; i < all->count; ++i) {
        x[i] = points.data()[2 * i], y[i] = points.data()[2 * i + 1];
        index[i] = static_cast<int32_t>(i);
    }
    return all;
}

void idw(Array<const double, 2> points, Array<const double, 2> values, std::array<double, 4> origin_step,
         size_t k, double radius, double power, Array<float, 3> out) {
    const auto [x0, y0, dx, dy] = origin_step;
    const int64_t height = out.shape(1), width = out.shape(2);
    const double* end = values.data() + values.size();
    const bool complete = std::none_of(values.data(), end, [](double value) { return std::isnan(value); });
    const Problem problem{{x0, y0, dx, dy},
                          {k, radius * radius},
                          power,
                          {values.data(), values.shape(1), complete},
                          {out.data(), height, width}};
    std::vector<Job> jobs;
    collect(problem, std::max(kJobCells, height * width / kJobs),
            {{0, 0, height, width}, every_point(points)}, jobs);
    work_off(problem, jobs);
}

}  // namespace

void register_idw(nb::module_& m) {
    m.def("idw", &idw, nb::arg("points").noconvert(), nb::arg("values").noconvert(), nb::arg("origin_step"),
          nb::arg("k"), nb::arg("radius"), nb::arg("power"), nb::arg("out").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
