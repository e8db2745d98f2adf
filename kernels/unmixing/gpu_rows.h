// The rows of one spectrum: weighted values of its measured channels, scaled so that squares stay in range.
#pragma once

#include "unmixing/gpu_factors.h"

namespace lithostream::unmixing {

constexpr double kRounding = 4.440892098500626e-16;  // 2 epsilon

struct Settings {
    int channels, count;
    bool sum;
    double ridge;
};

// One spectrum with its table and weights, as the caller gave them.
struct Given {
    const double *spectrum, *table, *weights;

    __device__ bool measured(int channel) const { return weights[channel] > 0 && !isnan(spectrum[channel]); }
};

// More channels than columns are rotated into as many rows as there are columns, and one for the rest of the
// spectrum. Powers of two bring each column near 1; with the sum all by the same.
struct Rows {
    Columns at;                   // the endmembers, then the spectrum
    Lane root;                    // of the ridge, by endmember
    Lane power;                   // exponent that was taken off each column
    int count = 0, exponent = 0;  // rows; exponent of the values alone
    double noise = 0;             // that the rotation may leave in a column, per unit of its length

    __device__ Lane target(const Settings& settings) const { return at[settings.count]; }

    // False where the range of double does not hold the weighted values.
    __device__ bool fill(const Settings& settings, const Given& given, const Lane& row) {
        int measured = 0;
        for (int b = 0; b < settings.channels; ++b) measured += given.measured(b);
        const bool rotates = measured > settings.count + 1;
        for (int i = 0; rotates && i < (settings.count + 1) * at.height; ++i) at.all[i] = 0;
        for (int b = 0; b < settings.channels; ++b) {
            if (!given.measured(b)) continue;
            const double weight = sqrt(given.weights[b]);
            for (int j = 0; j <= settings.count; ++j) {
                const double value = j < settings.count
                                         ? given.table[static_cast<long long>(j) * settings.channels + b]
                                         : given.spectrum[b];
                (rotates ? row[j] : at(j, count)) = weight * value;
            }
            if (rotates)
                rotate(settings.count + 1, row);
            else
                ++count;
        }
        if (rotates) {
            count = settings.count + 1;
            noise = kRounding * measured;
        }
        return scale(settings);
    }

  private:
    // One more row into the triangle (Givens).
    __device__ void rotate(int columns, const Lane& row) const {
        for (int k = 0; k < columns; ++k) {
            const double below = row[k];
            if (below == 0) continue;
            const double length = hypot(at(k, k), below);
            const double cosine = at(k, k) / length, sine = below / length;
            at(k, k) = length;
            for (int j = k + 1; j < columns; ++j) {
                const double upper = at(j, k), lower = row[j];
                at(j, k) = cosine * upper + sine * lower;
                row[j] = cosine * lower - sine * upper;
            }
        }
    }

    __device__ bool scale(const Settings& settings) {
        const double ridge = sqrt(settings.ridge);
        double most = 0, most_with_ridge = ridge;
        for (int j = 0; j <= settings.count; ++j) {
            double largest = 0;
            for (int i = 0; i < count; ++i) {
                if (!isfinite(at(j, i))) return false;
                largest = fmax(largest, fabs(at(j, i)));
            }
            most = fmax(most, largest);
            if (j < settings.count) largest = fmax(largest, ridge);
            most_with_ridge = fmax(most_with_ridge, largest);
            power[j] = exponent_of(largest);
        }
        exponent = settings.sum ? exponent_of(most) : static_cast<int>(power[settings.count]);
        for (int j = 0; j <= settings.count; ++j) {
            if (settings.sum) power[j] = exponent_of(most_with_ridge);
            const int down = -static_cast<int>(power[j]);
            for (int i = 0; i < count; ++i) at(j, i) = ldexp(at(j, i), down);
            if (j < settings.count) root[j] = ldexp(ridge, down);
        }
        return true;
    }

    static __device__ int exponent_of(double value) { return value > 0 ? ilogb(value) : 0; }
};

}  // namespace lithostream::unmixing
