// How a thread chooses the neighbours of its cell among the candidates.
#pragma once
#include "gridding/gpu_narrow.h"

namespace lithostream::gridding {

// The upper half of the bits of a distance: whole numbers in the same order, exact to a millionth.
__device__ inline int coarse(double squared) { return static_cast<int>(__double_as_longlong(squared) >> 32); }

// The neighbours of a cell are nearer than the limit; of those just as far, the first `equal`.
struct Choice {
    double limit;
    int equal;
    double nearest;  // infinity where there is no neighbour

    __device__ bool takes(double squared) { return squared < limit || (squared == limit && equal-- > 0); }
};

// One thread's cell among its candidates.
template <typename Points>
struct Cell {
    const Points& points;
    double x, y;

    __device__ double squared(int i) const {
        const double dx = points.x(i) - x, dy = points.y(i) - y;
        return dx * dx + dy * dy;
    }

    // Calls `use` with the position and the squared distance of each candidate within the radius.
    template <typename Use>
    __device__ void each(double squared_radius, Use use) const {
        for (int i = 0; i < points.count; ++i) {
            const double distance = squared(i);
            if (distance <= squared_radius) use(i, distance);
        }
    }

    // The k-th smallest coarse distance, and how many are below it.
    __device__ int kth_coarse(const Reach& reach, int& less) const {
        int below = -1, at = 0x7ff00000;
        less = 0;
        while (at - below > 1) {
            const int middle = below + (at - below) / 2;
            int found = 0;
            each(reach.squared_radius, [&](int, double distance) { found += coarse(distance) <= middle; });
            if (found < reach.k)
                below = middle, less = found;
            else
                at = middle;
        }
        return at;
    }

    // The limit among distances that are coarsely the k-th, from the least on.
    __device__ void settle(const Reach& reach, int kth, int less, Choice& choice) const {
        choice.limit = -1, choice.equal = 0;
        do {
            less += choice.equal;
            double next = infinity();
            int equal = 0;
            each(reach.squared_radius, [&](int, double distance) {
                if (coarse(distance) != kth || distance <= choice.limit || distance > next) return;
                equal = distance < next ? 1 : equal + 1;
                next = distance;
            });
            choice.limit = next, choice.equal = equal;
        } while (less + choice.equal < reach.k);
        choice.equal = reach.k - less;
    }

    // Sorts the least coarse distances, up to the one after the k-th, for a k of `Slots` or less.
    template <int Slots>
    __device__ Choice choose(const Reach& reach) const {
        Choice choice = {reach.squared_radius, 0x7fffffff, infinity()};
        int least[Slots + 1], inside = 0;
#pragma unroll
        for (int s = 0; s <= Slots; ++s) least[s] = s < Slots - reach.k ? -1 : 0x7fffffff;
        each(reach.squared_radius, [&](int, double distance) {
            ++inside;
            if (distance < choice.nearest) choice.nearest = distance;
            int moved = coarse(distance);
            if (reach.k > Slots || moved >= least[Slots]) return;
#pragma unroll
            for (int s = 0; s <= Slots; ++s) {
                const int other = max(least[s], moved);
                least[s] = min(least[s], moved), moved = other;
            }
        });
        if (inside <= reach.k) return choice;
        int kth = least[Slots - 1], less = 0;
        bool clear = kth < least[Slots];
        if (reach.k > Slots) {
            kth = kth_coarse(reach, less), clear = false;
        } else if (!clear) {
#pragma unroll
            for (int s = 0; s < Slots; ++s) less += s >= Slots - reach.k && least[s] < kth;
        }
        if (clear)
            choice.limit = from_bits((kth + 1LL) << 32), choice.equal = 0;
        else
            settle(reach, kth, less, choice);
        return choice;
    }
};

}  // namespace lithostream::gridding
