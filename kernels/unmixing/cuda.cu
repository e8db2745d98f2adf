// Non-negative unmixing on a GPU, one thread per spectrum. Where spectra share a table of few endmembers,
// each exchanges endmembers with operators that were made once; the numbers of those that need more are
// listed, and the exact solver takes the list. No spectrum sees another, so the order of the list changes no
// bit.
#include "gpu.h"
#include "unmixing/gpu_exact.h"
#include "unmixing/gpu_quick.h"

using namespace lithostream::unmixing;

namespace {

constexpr int kBadSpectra = 1, kBadEndmembers = 2, kBadWeights = 4;  // as in cuda.py
constexpr int kQuickThreads = 128, kExactThreads = 64;               // as in cuda.py

__device__ long long thread_number() { return blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; }

__device__ long long thread_count() { return gridDim.x * static_cast<long long>(blockDim.x); }

// The table in shared memory where the launch gave it `staged` doubles of that.
__device__ double* stage(double* table, int staged, double* shared) {
    if (staged == 0) return table;
    for (int i = threadIdx.x; i < staged; i += blockDim.x) shared[i] = table[i];
    __syncthreads();
    return shared;
}

template <int Width>
__device__ void solve_quickly(const double* spectra, const Table& table, int count, bool sum, int problems,
                              double* abundances, double* residual, unsigned char* flags, int* named,
                              int* names) {
    const bool usable = table.head(Table::kUsable) > 0;
    for (long long p = thread_number(); p < problems; p += thread_count()) {
        Quick<Width> quick(table, count, sum, spectra + p * table.channels);
        const int flag = usable ? quick.solve() : -1;
        if (flag >= 0 && quick.store(abundances + p * count, residual + p))
            flags[p] = static_cast<unsigned char>(flag);
        else
            names[atomicAdd(named, 1)] = static_cast<int>(p);
    }
}

}  // namespace

// found, 0 before: which arguments hold numbers that they may not.
extern "C" __global__ void inspect(const double* spectra, long long spectra_size, const double* endmembers,
                                   long long endmembers_size, const double* weights, long long weights_size,
                                   int* found) {
    int bad = 0;
    for (long long i = thread_number(); i < spectra_size; i += thread_count())
        bad |= isinf(spectra[i]) ? kBadSpectra : 0;
    for (long long i = thread_number(); i < endmembers_size; i += thread_count())
        bad |= isfinite(endmembers[i]) ? 0 : kBadEndmembers;
    for (long long i = thread_number(); i < weights_size; i += thread_count())
        bad |= isfinite(weights[i]) && weights[i] >= 0 ? 0 : kBadWeights;
    if (bad) atomicOr(found, bad);
}

// One block: the shared table and its Gram matrix [count, count].
extern "C" __global__ void prepare(const double* endmembers, const double* weights, int channels, int count,
                                   int width, int sum, double* table_at, double* gram) {
    __shared__ double square[kMostTabled];
    const Table table{table_at, channels, width};
    measure(table, endmembers, weights, count, sum, square);
    __syncthreads();
    normalise(table, count, square, gram);
}

// A thread per set of endmembers; scratch holds a triangle for each.
extern "C" __global__ void supports(double* table_at, const double* gram, int channels, int count, int width,
                                    int sum, double* scratch) {
    const Table table{table_at, channels, width};
    const unsigned set = static_cast<unsigned>(thread_number());
    if (set >> count || !(table.head(Table::kUsable) > 0)) return;
    Operator(table, gram, count, set, Lane{scratch + set, 1LL << count}).build(sum);
}

// names gets the numbers of the spectra that are left, *named how many; it is 0 before.
extern "C" __global__ void __launch_bounds__(kQuickThreads)
    quick_6(const double* spectra, double* table_at, int staged, int channels, int count, int sum,
            int problems, double* abundances, double* residual, unsigned char* flags, int* named,
            int* names) {
    DYNAMIC_SHARED(double, shared);
    const Table table{stage(table_at, staged, shared), channels, 6};
    solve_quickly<6>(spectra, table, count, sum, problems, abundances, residual, flags, named, names);
}

extern "C" __global__ void __launch_bounds__(kQuickThreads)
    quick_8(const double* spectra, double* table_at, int staged, int channels, int count, int sum,
            int problems, double* abundances, double* residual, unsigned char* flags, int* named,
            int* names) {
    DYNAMIC_SHARED(double, shared);
    const Table table{stage(table_at, staged, shared), channels, 8};
    solve_quickly<8>(spectra, table, count, sum, problems, abundances, residual, flags, named, names);
}

extern "C" __global__ void __launch_bounds__(kQuickThreads)
    quick_12(const double* spectra, double* table_at, int staged, int channels, int count, int sum,
             int problems, double* abundances, double* residual, unsigned char* flags, int* named,
             int* names) {
    DYNAMIC_SHARED(double, shared);
    const Table table{stage(table_at, staged, shared), channels, 12};
    solve_quickly<12>(spectra, table, count, sum, problems, abundances, residual, flags, named, names);
}

// The spectra of names [*named], or all `problems` where *named is -1. `scratch` is interleaved by thread.
extern "C" __global__ void __launch_bounds__(kExactThreads, 6)
    exact(const double* spectra, const double* endmembers, long long table_step, const double* weights,
          long long weight_step, int channels, int count, int sum, double ridge, long long problems,
          const int* named, const int* names, double* scratch, double* abundances, double* residual,
          unsigned char* flags) {
    const Settings settings{channels, count, sum != 0, ridge};
    const bool listed = *named >= 0;
    const long long total = listed ? *named : problems;
    for (long long i = thread_number(); i < total; i += thread_count()) {
        const long long p = listed ? names[i] : i;
        const Given given{spectra + p * channels, endmembers + p * table_step, weights + p * weight_step};
        Problem problem(settings, given, Lane{scratch + thread_number(), thread_count()});
        flags[p] = problem.solve(abundances + p * count, residual + p);
    }
}
