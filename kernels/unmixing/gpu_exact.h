// One thread solves one spectrum of any kind and says what was left open; flags are those of problem.h.
#pragma once

#include "unmixing/gpu_active_set.h"

namespace lithostream::unmixing {

constexpr double kTieTolerance = 1e-9;                                             // as in problem.h
constexpr unsigned char kUnderdetermined = 1, kAllMissing = 2, kNotConverged = 4;  // UnmixingFlag

class Problem : ActiveSet {
  public:
    // For `lane` see ActiveSet.
    __device__ Problem(const Settings& settings, const Given& given, const Lane& lane)
        : ActiveSet(settings, lane), given_(given) {}

    __device__ unsigned char solve(double* x, double* residual) {
        const bool held = rows_.fill(settings_, given_, gap_);
        if (held && rows_.count > 0 && search()) {
            const bool determined = tell_apart();
            *residual = unscale(x) ? misfit(x) : nan();
            if (isfinite(*residual)) return determined ? 0 : kUnderdetermined;
        }
        for (int j = 0; j < settings_.count; ++j) x[j] = nan();
        *residual = nan();
        return rows_.count > 0 ? kNotConverged : kAllMissing;
    }

  private:
    static __device__ double nan() { return __longlong_as_double(0x7ff8000000000000LL); }

    // Do the data alone, without the ridge, tell apart all endmembers that could carry abundance? With the
    // sum in the columns of problem.h: endmember - spectrum over a row as high as the longest of them, or so
    // high that what a rotation left of equal columns does not count.
    __device__ bool tell_apart() {
        double height = 0, longest = 0;
        for (int j = 0; j < settings_.count; ++j) {
            height = fmax(height, column_length(j));
            longest = fmax(longest, length_of(rows_.at[j], 0, rows_.count));
        }
        if (!(height > 0)) height = 1;
        longest += length_of(rows_.at[settings_.count], 0, rows_.count);
        const double noise = rows_.noise * longest;
        const unsigned open = open_set(height, noise);
        factors_.rows = rows_.count + settings_.sum;
        factors_.size = 0;
        for (int j = 0; j < settings_.count; ++j) {
            if (!has(open, j)) continue;
            const Lane column = factors_.next();
            for (int i = 0; i < rows_.count; ++i)
                column[i] = rows_.at(j, i) - (settings_.sum ? target(i) : 0);
            if (settings_.sum) column[rows_.count] = fmax(height, noise / kRankTolerance);
            const double length = length_of(column, 0, factors_.rows);
            if (!(factors_.append() > kRankTolerance * length)) return false;
        }
        return true;
    }

    // Those in use, and those whose gain is no further below 0 than its tolerance.
    __device__ unsigned open_set(double height, double noise) const {
        fill_gap();
        const int base = base_of(support_);
        const double size = length_of(rows_.at[settings_.count], 0, rows_.count);
        double square = 0, length;
        for (int i = 0; i < rows_.count; ++i) square += gap_[i] * gap_[i];
        for (int j = 0; j < settings_.count; ++j) square += ridge(j) * x_[j] * x_[j];
        unsigned open = 0;
        for (int j = 0; j < settings_.count; ++j) {
            const double own = column_length(j);
            const double unit =
                settings_.sum ? (height + square / height) * sqrt(own * own + height * height) : own * size;
            const double gain = gain_of(j, base, length);
            if (x_[j] > 0 || gain >= -kTieTolerance * unit - noise * (length + noise)) open |= 1u << j;
        }
        return open;
    }

    // Of the endmember, or with the sum of its difference to the spectrum, with the ridge.
    __device__ double column_length(int j) const {
        double square = ridge(j);
        for (int i = 0; i < rows_.count; ++i) {
            const double value = rows_.at(j, i) - (settings_.sum ? target(i) : 0);
            square += value * value;
        }
        return sqrt(square);
    }

    // False where the range of double does not hold the abundances.
    __device__ bool unscale(double* x) const {
        double sum = 0;
        for (int j = 0; j < settings_.count; ++j) {
            x[j] = ldexp(x_[j], static_cast<int>(rows_.power[settings_.count] - rows_.power[j]));
            sum += x[j];
        }
        for (int j = 0; settings_.sum && j < settings_.count; ++j) x[j] /= sum;
        return isfinite(sum);
    }

    __device__ double misfit(const double* x) const {
        double square = 0;
        for (int b = 0; b < settings_.channels; ++b) {
            if (!given_.measured(b)) continue;
            double gap = given_.spectrum[b];
            for (int j = 0; j < settings_.count; ++j)
                gap -= x[j] * given_.table[static_cast<long long>(j) * settings_.channels + b];
            gap = ldexp(sqrt(given_.weights[b]) * gap, -rows_.exponent);
            square += gap * gap;
        }
        return ldexp(sqrt(square), rows_.exponent);
    }

    const Given given_;
};

}  // namespace lithostream::unmixing
