// Connected pieces of clusters, and which neighbour a small one chooses.
#pragma once

#include "superpixels/gpu_tile.h"

namespace lithostream::superpixels {

constexpr unsigned long long kNoChoice = ~0ULL;

struct Region {
    unsigned short mean[kChannels];  // in 1/16
    int small;
};

__device__ inline unsigned long long rounded_mean(unsigned long long sum, unsigned long long count,
                                                  int scale) {
    return (sum * scale + count / 2) / count;
}

// Cluster of a pixel; unlike its four neighbours it joins the cluster that two of them share, or else the
// left one.
__device__ inline int settled(const int* clusters, int pitch, int height, int width, int y, int x) {
    const int* at = clusters + y * pitch + x;
    const int here = *at;
    if (here < 0 || y == 0 || x == 0 || y + 1 == height || x + 1 == width) return here;
    const int up = at[-pitch], down = at[pitch], left = at[-1], right = at[1];
    const bool inside = up >= 0 && down >= 0 && left >= 0 && right >= 0;
    if (!inside || up == here || down == here || left == here || right == here) return here;
    return right == up || right == down ? right : up == down ? up : left;
}

__device__ inline void offer(const Region* regions, int to, int neighbour, unsigned long long* choice) {
    unsigned gap = 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
        const int apart = regions[to].mean[c] - regions[neighbour].mean[c];
        gap += static_cast<unsigned>(apart * apart);
    }
    const unsigned long long offered =
        static_cast<unsigned long long>(gap) << 32 | static_cast<unsigned>(neighbour);
    if (offered < *static_cast<volatile unsigned long long*>(choice + to)) atomicMin(choice + to, offered);
}

__device__ inline void meet(const int* parent, const Region* regions, int one, int other,
                            unsigned long long* choice) {
    const int a = parent[one], b = parent[other];
    if (a == b) return;
    if (regions[a].small) offer(regions, a, b, choice);
    if (regions[b].small) offer(regions, b, a, choice);
}

}  // namespace lithostream::superpixels
