// How a thread weighs the values of the neighbours of its cell.
#pragma once
#include "gridding/gpu_choose.h"

namespace lithostream::gridding {

constexpr int kTogether = 16;  // channels summed in registers

// 1 for the nearest; points on the cell itself leave no other.
__device__ inline double weight(double nearest, double squared, double power) {
    if (nearest == 0) return squared == 0;
    const double ratio = nearest / squared;
    return power == 2 ? ratio : pow(ratio, power / 2);
}

struct Channels {
    const double* values;  // [point][channel]
    int count;
    bool complete;  // no NaN anywhere
    double power;
};

// One cell of all channels.
struct Target {
    float* at;
    long long step;

    __device__ void put(int channel, double sum, double total, bool any) const {
        at[channel * step] = any ? static_cast<float>(sum / total) : __int_as_float(0x7fc00000);
    }
};

// Some channels from `first` on with the same weights.
template <int Most, typename Points>
__device__ void blend(const Cell<Points>& cell, Choice choice, const Channels& channels, int first,
                      const Target& out) {
    const int left = channels.count - first;
    double sums[Most] = {}, total = 0;
    for (int i = 0; i < cell.points.count; ++i) {
        const double squared = cell.squared(i);
        if (!choice.takes(squared)) continue;
        const double own = weight(choice.nearest, squared, channels.power);
        const double* row = channels.values + static_cast<long long>(cell.points.index(i)) * channels.count;
        total += own;
#pragma unroll
        for (int c = 0; c < Most; ++c)
            if (c < left) sums[c] += own * row[first + c];
    }
#pragma unroll
    for (int c = 0; c < Most; ++c)
        if (c < left) out.put(first + c, sums[c], total, choice.nearest < infinity());
}

// One channel with the weights of those neighbours that have a value there.
template <typename Points>
__device__ void blend_known(const Cell<Points>& cell, const Choice& choice, const Channels& channels,
                            int channel, const Target& out) {
    const auto known = [&](auto use) {
        Choice own = choice;
        for (int i = 0; i < cell.points.count; ++i) {
            const double squared = cell.squared(i);
            if (!own.takes(squared)) continue;
            const double value =
                channels.values[static_cast<long long>(cell.points.index(i)) * channels.count + channel];
            if (value == value) use(squared, value);
        }
    };
    double nearest = infinity(), sum = 0, total = 0;
    known([&](double squared, double) {
        if (squared < nearest) nearest = squared;
    });
    known([&](double squared, double value) {
        const double own = weight(nearest, squared, channels.power);
        total += own, sum += own * value;
    });
    out.put(channel, sum, total, nearest < infinity());
}

}  // namespace lithostream::gridding
