// The sum eliminated by one of the shares, so that the row that demands it hides nothing: beside a long
// column its height would drown a small ridge. Corrects an answer that is nearly right.
#pragma once

#include <cstdint>

#include "unmixing/active_set.h"

namespace lithostream::unmixing {

// min |rows of (A x - s)|^2 + ridge |x|^2 over x >= 0 with sum(x) = 1; `at` holds weighted values.
class Simplex {
  public:
    Simplex(const std::array<Column, kMaxEndmembers>& at, const Column& target, int rows, int count,
            double ridge)
        : at_(at), target_(target), rows_(rows), count_(count), ridge_(ridge), root_ridge_(std::sqrt(ridge)) {
        for (int j = 0; j < count; ++j) {
            remote_[j] = 0;
            for (int k = 0; k < count; ++k) remote_[j] += distance(k, j);
        }
    }

    // Active set as by Lawson and Hanson, from `x` on.
    void polish(double* x) {
        uint32_t support = 0;
        for (int j = 0; j < count_; ++j) support |= x[j] > 0 ? 1u << j : 0;
        if (!settle(x, support, -1)) return;
        uint32_t rejected = 0;
        for (int step = 0; step < kStepsPerColumn * count_; ++step) {
            const int entering = steepest(x, support | rejected, base_of(support));
            if (entering < 0) return;
            uint32_t grown = support | 1u << entering;
            if (settle(x, grown, entering)) {
                support = grown;
                rejected = 0;
            } else {
                rejected |= 1u << entering;
            }
        }
    }

  private:
    double distance(int j, int base) const {
        double sum = 0;
        for (int i = 0; i < rows_; ++i) sum += std::abs(at_[j][i] - at_[base][i]);
        return sum;
    }

    Column misfit(const double* x) const {
        Column gap;
        std::copy_n(target_.begin(), rows_, gap.begin());
        for (int j = 0; j < count_; ++j)
            for (int i = 0; x[j] > 0 && i < rows_; ++i) gap[i] -= x[j] * at_[j][i];
        return gap;
    }

    // The one amidst the others: differences to it are short.
    int base_of(uint32_t support) const {
        int base = -1;
        for (int j = 0; j < count_; ++j)
            if ((support >> j & 1) && (base < 0 || remote_[j] < remote_[base])) base = j;
        return base;
    }

    int steepest(const double* x, uint32_t excluded, int base) const {
        const Column gap = misfit(x);
        const double size = norm(gap.data(), rows_);
        double most = 0;
        int best = -1;
        for (int j = 0; j < count_; ++j) {
            if (excluded >> j & 1) continue;
            double gain = ridge_ * x[base];  // the share of j is 0
            for (int i = 0; i < rows_; ++i) gain += (at_[j][i] - at_[base][i]) * gap[i];
            const double scale = distance(j, base) * size + ridge_ * x[base];
            if (gain > kGradientTolerance * rows_ * scale && gain > most * scale) {
                most = gain / scale;
                best = j;
            }
        }
        return best;
    }

    // Move to the solution on `support`, dropping each share that reaches 0 on the way. False, and nothing
    // moved, where there is none or the entering share would not grow.
    bool settle(double* x, uint32_t& support, int entering) const {
        for (bool first = true;; first = false) {
            Row moved;
            if (!solve(x, support, moved)) return !first;
            if (first && entering >= 0 && !(moved[entering] > 0)) return false;
            int blocking = -1;
            double reach = 1;
            for (int j = 0; j < count_; ++j) {
                if (!(support >> j & 1) || moved[j] >= 0) continue;
                const double here = x[j] / (x[j] - moved[j]);
                if (blocking >= 0 && here >= reach) continue;
                blocking = j;
                reach = here;
            }
            for (int j = 0; j < count_; ++j)
                if (support >> j & 1)
                    x[j] = blocking < 0 ? moved[j] : std::max(x[j] + reach * (moved[j] - x[j]), 0.0);
            if (blocking < 0) return true;
            x[blocking] = 0;
            support &= ~(1u << blocking);
        }
    }

    bool solve(const double* x, uint32_t support, Row& moved) const {
        const int base = base_of(support);
        Qr qr(rows_ + count_);
        Column target = misfit(x);
        for (int j = 0; j < count_; ++j) target[rows_ + j] = -root_ridge_ * x[j];
        for (int j = 0; j < count_; ++j) {
            if (j == base || !(support >> j & 1)) continue;
            Column change;
            for (int i = 0; i < rows_; ++i) change[i] = at_[j][i] - at_[base][i];
            std::fill_n(&change[rows_], count_, 0.0);
            change[rows_ + j] = root_ridge_;
            change[rows_ + base] = -root_ridge_;
            const double least = ridge_ > 0 ? 0 : kRankTolerance * distance(j, base);
            if (!(qr.append(change) > least)) return false;
        }
        const Row step = qr.solve(target);
        moved.fill(0);
        double others = 0;
        for (int j = 0, k = 0; j < count_; ++j) {
            if (j == base || !(support >> j & 1)) continue;
            moved[j] = x[j] + step[k++];
            if (!std::isfinite(moved[j])) return false;
            others += moved[j];
        }
        moved[base] = 1 - others;
        return true;
    }

    const std::array<Column, kMaxEndmembers>& at_;
    const Column& target_;
    int rows_, count_;
    double ridge_, root_ridge_;
    Row remote_;
};

}  // namespace lithostream::unmixing
