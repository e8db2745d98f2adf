// How a block of threads names the points that can be among the k nearest of some cell of a box.
#pragma once
#include "gridding/bounds.h"

namespace lithostream::gridding {

constexpr int kMostWarps = 32;  // of a block
constexpr int kHalvings = 32;   // of the bracket around a limit that need not be exact

__device__ inline double from_bits(long long bits) { return __longlong_as_double(bits); }
__device__ inline double infinity() { return from_bits(0x7ff0000000000000LL); }

struct Reach {
    int k;
    double squared_radius;
};

// Some points in ascending order of their index; all where there are no names.
struct Named {
    const double* points;
    const int* names;
    int count;

    __device__ int index(int i) const { return names ? names[i] : i; }
    __device__ double x(int i) const { return points[2LL * index(i)]; }
    __device__ double y(int i) const { return points[2LL * index(i) + 1]; }
};

// The same in shared memory.
struct Staged {
    const double *xs, *ys;
    const int* names;
    int count;

    __device__ int index(int i) const { return names[i]; }
    __device__ double x(int i) const { return xs[i]; }
    __device__ double y(int i) const { return ys[i]; }
};

// What the threads of a block tell each other.
struct Board {
    int found[kHalvings], kept[kMostWarps];
};

// A number that at least k upper ends do not exceed, close to the k-th smallest.
__device__ inline double limit_of(const Box& box, const Named& from, int k, Board& board) {
    if (from.count <= k) return infinity();
    if (threadIdx.x < kHalvings) board.found[threadIdx.x] = 0;
    __syncthreads();
    long long below = -1, at = __double_as_longlong(infinity());
    for (int halving = 0; halving < kHalvings; ++halving) {
        const long long middle = below + (at - below) / 2;
        int found = 0;
        for (int i = threadIdx.x; i < from.count; i += blockDim.x)
            found += Ends(box, from.x(i), from.y(i)).upper <= from_bits(middle);
        found = __reduce_add_sync(~0u, found);
        if (threadIdx.x % 32 == 0) atomicAdd(&board.found[halving], found);
        __syncthreads();
        found = board.found[halving];
        (found < k ? below : at) = middle;
        if (found == k) break;
    }
    return from_bits(at);
}

// Names the points that the cells of a box can reach; returns how many, or more than `room` if it is too
// small.
__device__ inline int narrow(const Box& box, const Named& from, const Reach& reach, int room, int* to,
                             Board& board) {
    const double limit = limit_of(box, from, reach.k, board);
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int kept = 0;
    for (int first = 0; first < from.count && kept <= room; first += blockDim.x) {
        const int i = first + threadIdx.x;
        bool keep = i < from.count;
        if (keep) {
            const double x = from.x(i), y = from.y(i);
            const Ends ends(box, x, y);
            keep = ends.lower <= limit && !beyond(box, x, y, ends.upper, reach.squared_radius);
        }
        const unsigned lanes = __ballot_sync(~0u, keep);
        if (threadIdx.x % 32 == 0) board.kept[warp] = __popc(lanes);
        __syncthreads();
        int place = kept + __popc(lanes & ((1u << threadIdx.x % 32) - 1));
        for (int w = 0; w < warps; ++w) {
            if (w < warp) place += board.kept[w];
            kept += board.kept[w];
        }
        if (keep && place < room) to[place] = from.index(i);
        __syncthreads();
    }
    return kept;
}

}  // namespace lithostream::gridding
