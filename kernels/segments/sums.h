// Sums of a set of values and of their squares about one of the values. Plain C++ for host and device alike.
#pragma once

#include "both.h"

namespace lithostream::segments {

// Shifted data (Chan, Golub, LeVeque 1983, Algorithms for computing the sample variance, section 3). No
// offset cancels: the mean is at most sqrt(count) standard deviations away from a value of the set. Sets are
// joined about the shift of the first; shifts are values, so unlike means they are not rounded and their
// difference is as good as exact.
struct Sums {
    long long count;
    double shift, sum, squares;

    LITHOSTREAM_BOTH void add(double value) {
        if (count++ == 0) shift = value;
        const double apart = value - shift;
        sum += apart;
        squares += apart * apart;
    }

    LITHOSTREAM_BOTH void merge(const Sums& later) {
        if (later.count == 0) return;
        if (count == 0) {
            *this = later;
            return;
        }
        const double apart = later.shift - shift, moved = static_cast<double>(later.count) * apart;
        squares += later.squares + apart * (2 * later.sum + moved);
        sum += later.sum + moved;
        count += later.count;
    }

    LITHOSTREAM_BOTH double mean() const { return shift + sum / static_cast<double>(count); }

    LITHOSTREAM_BOTH double variance() const {
        const double n = static_cast<double>(count), apart = sum / n, found = squares / n - apart * apart;
        return found > 0 ? found : 0;
    }
};

}  // namespace lithostream::segments
