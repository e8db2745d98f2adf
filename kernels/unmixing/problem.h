// One spectrum solved exactly: builds its rows, solves them, reports what was left open.
#pragma once

#include <cstdint>

#include "unmixing/simplex.h"

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
                if (settings_.sum_to_one) polish(x);
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

    // The sum row hides small ridges and, far from the endmembers, as many digits as the squared distance
    // has: finish without that row.
    void polish(double* x) {
        std::array<Column, kMaxEndmembers> at;
        for (int j = 0; j < settings_.endmembers; ++j)
            for (int i = 0; i < measured_; ++i) at[j][i] = root_[i] * entry(j, i);
        Column target;
        for (int i = 0; i < measured_; ++i) target[i] = root_[i] * spectrum_[channel_[i]];
        Simplex(at, target, measured_, settings_.endmembers, settings_.ridge).polish(x);
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
