// Active sets as by Lawson and Hanson (1974, 23.10), in one thread. A sum of 1 is eliminated by the share of
// an endmember amidst the others, as in simplex.h.
#pragma once

#include "unmixing/gpu_rows.h"

namespace lithostream::unmixing {

constexpr int kStepsPerColumn = 10;
constexpr double kRankTolerance = 1e-11;  // as in active_set.h

class ActiveSet {
  public:
    // `lane` holds (count + 1) * (2 * min(channels, count + 1) + count) + 7 * count + 1 numbers.
    __device__ ActiveSet(const Settings& settings, Lane lane) : settings_(settings) {
        const int count = settings.count, most = min(settings.channels, count + 1), tall = most + count;
        rows_.at = {lane.take((count + 1) * most), most};
        rows_.root = lane.take(count);
        rows_.power = lane.take(count + 1);
        x_ = lane.take(count), moved_ = lane.take(count), remote_ = lane.take(count);
        gap_ = lane.take(tall);
        factors_ = {{lane.take(count * tall), tall}, lane.take(count), lane.take(count), 0, 0};
    }

  protected:
    __device__ double target(int i) const { return rows_.at(settings_.count, i); }
    __device__ bool has(unsigned support, int j) const { return support >> j & 1; }
    __device__ double ridge(int j) const { return rows_.root[j] * rows_.root[j]; }

    // False where the step limit is reached. With a ridge and the sum it is followed to the last digit, as
    // far as steps allow: beside a long column the size of the numbers would hide it.
    __device__ bool search() {
        start();
        unsigned rejected = 0;
        bool tight = false;
        for (int left = kStepsPerColumn * settings_.count;;) {
            const int entering = steepest(support_ | rejected, tight);
            if (entering < 0 && (tight || !(settings_.sum && settings_.ridge > 0))) return true;
            if (entering < 0) {
                tight = true;
                rejected = 0;
            } else if (left-- == 0) {
                return tight;
            } else {
                const bool entered = settle(support_ | 1u << entering, entering);
                rejected = entered ? 0 : rejected | 1u << entering;
            }
        }
    }

    // The one amidst the others: differences to it are short. -1 without the sum.
    __device__ int base_of(unsigned support) const {
        int base = -1;
        for (int j = 0; settings_.sum && j < settings_.count; ++j)
            if (has(support, j) && (base < 0 || remote_[j] < remote_[base])) base = j;
        return base;
    }

    // Spectrum less mixture; returns the size of all that is subtracted.
    __device__ double fill_gap() const {
        double size = 0;
        for (int i = 0; i < rows_.count; ++i) {
            gap_[i] = target(i);
            size += fabs(gap_[i]);
        }
        for (int j = 0; j < settings_.count; ++j)
            for (int i = 0; x_[j] > 0 && i < rows_.count; ++i) {
                const double part = x_[j] * rows_.at(j, i);
                gap_[i] -= part;
                size += fabs(part);
            }
        return size;
    }

    // Descent per unit of share j, which is 0, and the length it moves along.
    __device__ double gain_of(int j, int base, double& length) const {
        double gain = base < 0 ? 0 : ridge(base) * x_[base];
        length = 0;
        for (int i = 0; i < rows_.count; ++i) {
            const double along = change(j, base, i);
            gain += along * gap_[i];
            length += fabs(along);
        }
        return gain;
    }

    const Settings settings_;
    Rows rows_;
    Factors factors_;
    Lane x_, gap_;
    unsigned support_ = 0;

  private:
    // From nothing, or with the sum from the endmember nearest to the spectrum.
    __device__ void start() {
        support_ = 0;
        int nearest = 0;
        double least = -1;
        for (int j = 0; j < settings_.count; ++j) {
            x_[j] = remote_[j] = 0;
            if (!settings_.sum) continue;
            double square = 0;
            for (int i = 0; i < rows_.count; ++i) {
                square += (rows_.at(j, i) - target(i)) * (rows_.at(j, i) - target(i));
                for (int k = 0; k < settings_.count; ++k) remote_[j] += fabs(rows_.at(k, i) - rows_.at(j, i));
            }
            if (least >= 0 && square >= least) continue;
            nearest = j;
            least = square;
        }
        if (!settings_.sum) return;
        x_[nearest] = 1;
        support_ = 1u << nearest;
    }

    // The column that share j moves along.
    __device__ double change(int j, int base, int i) const {
        return rows_.at(j, i) - (base < 0 ? 0 : rows_.at(base, i));
    }

    __device__ int steepest(unsigned excluded, bool tight) const {
        const double all = fill_gap(), size = tight ? length_of(gap_, 0, rows_.count) : all;
        const int base = base_of(support_);
        const double pull = base < 0 ? 0 : ridge(base) * x_[base];
        double most = 0;
        int best = -1;
        for (int j = 0; j < settings_.count; ++j) {
            if (has(excluded, j)) continue;
            double length;
            const double gain = gain_of(j, base, length), scale = length * size + pull;
            if (gain > kRounding * rows_.count * scale && gain > most * scale) {
                most = gain / scale;
                best = j;
            }
        }
        return best;
    }

    // Move to the solution on `support`, dropping each share that reaches 0 on the way. False, and nothing
    // moved, where there is none or the entering share would not grow.
    __device__ bool settle(unsigned support, int entering) {
        for (bool first = true;; first = false) {
            if (!balance(support)) return !first;
            if (first && !(moved_[entering] > 0)) return false;
            int blocking = -1;
            double reach = 1;
            for (int j = 0; j < settings_.count; ++j) {
                if (!has(support, j) || moved_[j] >= 0) continue;
                const double here = x_[j] / (x_[j] - moved_[j]);
                if (blocking >= 0 && here >= reach) continue;
                blocking = j;
                reach = here;
            }
            for (int j = 0; j < settings_.count; ++j)
                if (has(support, j))
                    x_[j] = blocking < 0 ? moved_[j] : fmax(x_[j] + reach * (moved_[j] - x_[j]), 0.0);
            if (blocking >= 0) {
                x_[blocking] = 0;
                support &= ~(1u << blocking);
            }
            support_ = support;
            if (blocking < 0) return true;
        }
    }

    // The solution on `support` to moved_; false where its columns depend on each other.
    __device__ bool balance(unsigned support) {
        const int base = base_of(support), count = settings_.count;
        fill_gap();
        const bool ridged = settings_.ridge > 0;
        factors_.rows = rows_.count + (ridged ? count : 0);
        factors_.size = 0;
        for (int j = 0; ridged && j < count; ++j) gap_[rows_.count + j] = -rows_.root[j] * x_[j];
        for (int j = 0; j < count; ++j) {
            if (j == base || !has(support, j)) continue;
            const Lane column = factors_.next();
            double length = 0;
            for (int i = 0; i < rows_.count; ++i) {
                column[i] = change(j, base, i);
                length += fabs(column[i]);
            }
            for (int k = 0; ridged && k < count; ++k)
                column[rows_.count + k] = k == j ? rows_.root[k] : k == base ? -rows_.root[k] : 0;
            if (!(factors_.append() > (ridged ? 0 : kRankTolerance * length))) return false;
        }
        factors_.solve(gap_);
        return move(support, base);
    }

    __device__ bool move(unsigned support, int base) const {
        double others = 0;
        for (int j = 0, k = 0; j < settings_.count; ++j) {
            if (j == base || !has(support, j)) continue;
            moved_[j] = x_[j] + gap_[k++];
            if (!isfinite(moved_[j])) return false;
            others += moved_[j];
        }
        if (base >= 0) moved_[base] = 1 - others;
        return true;
    }

    Lane moved_, remote_;
};

}  // namespace lithostream::unmixing
