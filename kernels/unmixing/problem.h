// One spectrum solved exactly: builds its rows, solves them, reports what was left open.
#pragma once

#include <cstdint>

#include "unmixing/active_set.h"

namespace lithostream::unmixing {

constexpr uint8_t kUnderdetermined = 1, kAllMissing = 2, kNotConverged = 4;  // UnmixingFlag
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// An endmember at 0 whose gain is no further below 0 than this could carry abundance as well.
constexpr double kTieTolerance = 1e-9;

struct Settings {
    int channels, endmembers;
    bool sum_to_one;
    double ridge;
};

// One spectrum: rows are the measured channels, the sum if asked for, then the ridge.
class Problem {
  public:
    Problem(const Settings& settings, const double* spectrum, const double* table, const double* weights)
        : settings_(settings), spectrum_(spectrum), table_(table) {
        for (int b = 0; b < settings.channels; ++b)
            if (!std::isnan(spectrum[b]) && weights[b] > 0) {
                channel_[measured_] = b;
                root_[measured_++] = std::sqrt(weights[b]);
            }
    }

    uint8_t solve(double* x, double* residual) {
        if (measured_ > 0 && build()) {
            ActiveSet active(columns_, target_);
            if (active.solve() && unscale(active.x(), x)) {
                if (settings_.sum_to_one) rebalance(x);
                *residual = norm(misfit(x).data(), measured_);
                if (std::isfinite(*residual)) return determined(active) ? 0 : kUnderdetermined;
            }
        }
        std::fill_n(x, settings_.endmembers, kNaN);
        *residual = kNaN;
        return measured_ > 0 ? kNotConverged : kAllMissing;
    }

  private:
    // With the sum, the columns are endmember - spectrum and the target is the sum row alone.
    // False where the range of double does not hold them.
    bool build() {
        const int count = settings_.endmembers, data_rows = measured_ + settings_.sum_to_one;
        columns_.count = count;
        columns_.rows = data_rows + (settings_.ridge > 0 ? count : 0);
        double longest = 0;
        for (int j = 0; j < count; ++j) {
            Column& column = columns_.at[j];
            column.fill(0);
            for (int i = 0; i < measured_; ++i) column[i] = root_[i] * (entry(j, i) - sum_part(i));
            if (settings_.ridge > 0) column[data_rows + j] = std::sqrt(settings_.ridge);
            longest = std::max(longest, norm(column.data(), columns_.rows));
        }
        target_.fill(0);
        for (int i = 0; i < measured_; ++i) target_[i] = root_[i] * (spectrum_[channel_[i]] - sum_part(i));
        if (settings_.sum_to_one) {
            // Any height of the sum row gives the same answer; that of the columns keeps them well apart.
            target_[measured_] = longest > 0 ? longest : 1;
            for (int j = 0; j < count; ++j) columns_.at[j][measured_] = target_[measured_];
        }
        target_scale_ = norm(target_.data(), columns_.rows);
        for (int i = 0; target_scale_ > 0 && i < columns_.rows; ++i) target_[i] /= target_scale_;
        bool finite = std::isfinite(target_scale_);
        for (int j = 0; j < count; ++j) {
            columns_.normalise(j);
            finite = finite && std::isfinite(columns_.scale[j]);
        }
        return finite;
    }

    double entry(int j, int i) const { return table_[j * settings_.channels + channel_[i]]; }
    double sum_part(int i) const { return settings_.sum_to_one ? spectrum_[channel_[i]] : 0; }

    // Abundances from scaled coefficients; false where the range of double does not hold them.
    bool unscale(const Row& scaled, double* x) const {
        double sum = 0;
        for (int j = 0; j < settings_.endmembers; ++j) {
            const double share = scaled[j] / columns_.scale[j];
            x[j] = settings_.sum_to_one ? share : share * target_scale_;
            sum += x[j];
        }
        for (int j = 0; settings_.sum_to_one && j < settings_.endmembers; ++j) x[j] /= sum;
        return std::isfinite(sum) && (!settings_.sum_to_one || sum > 0);
    }

    // Solve once more on the endmembers in use, now with the largest one eliminated by the sum: far from the
    // endmembers the sum row loses as many digits as the squared distance has.
    void rebalance(double* x) const {
        const int count = settings_.endmembers, ridge_row = measured_;
        const int largest = static_cast<int>(std::max_element(x, x + count) - x);
        const double root_ridge = std::sqrt(settings_.ridge);
        Qr qr(measured_ + (settings_.ridge > 0 ? count : 0));
        Column target = misfit(x);
        for (int j = 0; j < count; ++j) target[ridge_row + j] = -root_ridge * x[j];
        for (int j = 0; j < count; ++j) {
            if (j == largest || x[j] == 0) continue;
            Column change{};
            for (int i = 0; i < measured_; ++i) change[i] = root_[i] * (entry(j, i) - entry(largest, i));
            change[ridge_row + j] = root_ridge;
            change[ridge_row + largest] = -root_ridge;
            if (qr.append(change) == 0) return;
        }
        const Row step = qr.solve(target);
        Row moved{};
        double others = 0;
        for (int j = 0, k = 0; j < count; ++j) {
            if (j == largest || x[j] == 0) continue;
            moved[j] = x[j] + step[k++];
            if (!(moved[j] >= 0)) return;
            others += moved[j];
        }
        moved[largest] = 1 - others;
        if (moved[largest] >= 0) std::copy_n(moved.begin(), count, x);
    }

    Column misfit(const double* x) const {
        Column gap;
        for (int i = 0; i < measured_; ++i) {
            gap[i] = spectrum_[channel_[i]];
            for (int j = 0; j < settings_.endmembers; ++j) gap[i] -= x[j] * entry(j, i);
            gap[i] *= root_[i];
        }
        return gap;
    }

    // Do the data alone, without the ridge, tell apart all endmembers that could carry abundance?
    bool determined(const ActiveSet& active) {
        columns_.rows = measured_ + settings_.sum_to_one;
        Qr qr(columns_.rows);
        for (int j = 0; j < columns_.count; ++j) {
            if (active.x()[j] == 0 && active.gain()[j] < -kTieTolerance) continue;
            columns_.normalise(j);
            if (!(qr.append(columns_.at[j]) > kRankTolerance)) return false;
        }
        return true;
    }

    const Settings& settings_;
    const double *spectrum_, *table_;
    int measured_ = 0;
    std::array<int, kMaxChannels> channel_;
    std::array<double, kMaxChannels> root_;
    UnitColumns columns_;
    Column target_;
    double target_scale_ = 0;
};

}  // namespace lithostream::unmixing
