// A run of spectra: the quick way where its proof holds, the exact solver for everything else.
#pragma once

#include "unmixing/pivot.h"
#include "unmixing/search.h"

namespace lithostream::unmixing {

constexpr int kMapChannels = 3;
constexpr int kMapCells = 256;  // per side

struct Batch {
    Settings settings;
    const double *spectra, *tables, *weights;
    int64_t table_step, weight_step;  // 0 where shared
    double *abundances, *residual;
    uint8_t* flags;

    void solve_exactly(int64_t p) const {
        Problem problem(settings, spectra + p * settings.channels, tables + p * table_step,
                        weights + p * weight_step);
        flags[p] = problem.solve(abundances + p * settings.endmembers, residual + p);
    }
};

template <int E, bool Sum>
class Runner {
  public:
    explicit Runner(const Batch& batch)
        : batch_(batch),
          shared_factors_(true, batch.settings.endmembers),
          own_factors_(false, batch.settings.endmembers) {
        if (batch.table_step != 0 || batch.weight_step != 0) return;
        select(batch.weights, nullptr);
        shared_channels_ = measured_;
        fill(shared_, batch.tables);
        const int count = shared_.count;
        if (!shared_.usable) return;
        const Support all = (Support{1} << count) - 1;
        if (count <= shared_.rows + Sum && shared_factors_.find(shared_, all).usable)
            start_ = all;
        else if (!Sum && shared_.rows == kMapChannels)
            map_.assign(kMapCells * kMapCells, kUnknown);
    }

    void run(int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p)
            if (!quick(p)) batch_.solve_exactly(p);
    }

  private:
    static constexpr uint16_t kUnknown = 0xFFFF;

    bool quick(int64_t p) {
        const Settings& settings = batch_.settings;
        const double* spectrum = batch_.spectra + p * settings.channels;
        if (shared_.usable && whole(spectrum)) {
            measured_ = shared_channels_;
            return attempt(p, shared_, shared_factors_, spectrum);
        }
        select(batch_.weights + p * batch_.weight_step, spectrum);
        if (measured_ == 0) return false;
        fill(own_, batch_.tables + p * batch_.table_step);
        return own_.usable && attempt(p, own_, own_factors_, spectrum);
    }

    bool whole(const double* spectrum) const {
        bool missing = false;
        for (int i = 0; i < shared_channels_; ++i) missing |= std::isnan(spectrum[shared_channel_[i]]);
        return !missing;
    }

    // The channels with a weight and, if there is a spectrum, with a value.
    void select(const double* weights, const double* spectrum) {
        measured_ = 0;
        auto& channel = spectrum ? channel_ : shared_channel_;
        auto& root = spectrum ? root_ : shared_root_;
        for (int b = 0; b < batch_.settings.channels; ++b)
            if (weights[b] > 0 && !(spectrum && std::isnan(spectrum[b]))) {
                channel[measured_] = b;
                root[measured_++] = std::sqrt(weights[b]);
            }
    }

    void fill(Table<E>& table, const double* values) const {
        const bool own = &table == &own_;
        const auto& channel = own ? channel_ : shared_channel_;
        const auto& root = own ? root_ : shared_root_;
        const int channels = batch_.settings.channels;
        table.rows = measured_;
        table.count = batch_.settings.endmembers;
        for (int i = 0; i < measured_; ++i)
            for (int j = 0; j < E; ++j)
                table.at[i][j] = j < table.count ? root[i] * values[j * channels + channel[i]] : 0;
        table.template finish<Sum>();
    }

    bool attempt(int64_t p, const Table<E>& table, Factors<E, Sum>& factors, const double* spectrum) {
        const bool own = &table == &own_;
        const auto& channel = own ? channel_ : shared_channel_;
        const auto& root = own ? root_ : shared_root_;
        double b[kMaxChannels + 1], largest = 0;
        for (int i = 0; i < table.rows; ++i) {
            b[i] = root[i] * spectrum[channel[i]];
            largest = std::max(largest, std::abs(b[i]));
        }
        if (!std::isfinite(largest)) return false;
        const int shift = Sum ? table.shift : largest > 0 ? rescue(largest) : 0;
        for (int i = 0; shift != 0 && i < table.rows; ++i) b[i] = std::ldexp(b[i], shift);
        if (Sum && largest > 0 && rescue(std::ldexp(largest, shift)) != 0) return false;
        b[table.rows] = 1;
        Pivot<E, Sum> pivot(table, factors);
        const Support start =
            own ? Search<E, Sum>(own_, b).run(kCertificate * largest * table.rows) : guess(b);
        return pivot.solve(b, start) && store(p, pivot, table, shift);
    }

    bool store(int64_t p, Pivot<E, Sum>& pivot, const Table<E>& table, int shift) const {
        const int flag = pivot.flag();
        if (flag < 0) return false;
        double *x = batch_.abundances + p * table.count, sum = 0;
        for (int j = 0; j < table.count; ++j) {
            x[j] = pivot.x()[j] * table.inverse[j];
            sum += x[j];
        }
        for (int j = 0; Sum && j < table.count; ++j) x[j] /= sum;
        for (int j = 0; !Sum && shift != table.shift && j < table.count; ++j)
            x[j] = std::ldexp(x[j], table.shift - shift);
        batch_.residual[p] = shift == 0 ? pivot.residual() : std::ldexp(pivot.residual(), -shift);
        batch_.flags[p] = static_cast<uint8_t>(flag);
        return std::isfinite(batch_.residual[p]) && std::isfinite(sum);
    }

    // The same for a spectrum whatever its batch: it may decide which of several answers is returned.
    Support guess(const double* b) {
        if (start_ != 0) return start_;
        if (map_.empty() || !(b[0] >= 0 && b[1] >= 0 && b[2] >= 0)) return first(shared_, b);
        const double sum = b[0] + b[1] + b[2];
        if (!(sum > 0)) return 0;
        const int row = std::min(static_cast<int>(b[0] / sum * kMapCells), kMapCells - 1);
        const int column = std::min(static_cast<int>(b[1] / sum * kMapCells), kMapCells - 1);
        uint16_t& cell = map_[row * kMapCells + column];
        if (cell == kUnknown) {
            const double u = (row + 0.5) / kMapCells, v = (column + 0.5) / kMapCells;
            const double centre[] = {u, v, std::max(1 - u - v, 0.0), 1};
            Pivot<E, Sum> pivot(shared_, shared_factors_);
            cell = pivot.solve(centre, 0) ? static_cast<uint16_t>(pivot.support()) : 0;
        }
        return cell;
    }

    // None, or with the sum the endmember nearest to the spectrum.
    static Support first(const Table<E>& table, const double* b) {
        if (!Sum) return 0;
        double square[E] = {};
        for (int i = 0; i < table.rows; ++i)
            for (int j = 0; j < E; ++j) {
                const double gap = table.at[i][j] * table.scale[j] - b[i];
                square[j] += gap * gap;
            }
        return Support{1} << (std::min_element(square, square + table.count) - square);
    }

    const Batch& batch_;
    int measured_ = 0, shared_channels_ = 0;
    std::array<int, kMaxChannels> channel_, shared_channel_;
    std::array<double, kMaxChannels> root_, shared_root_;
    Table<E> shared_, own_;
    Factors<E, Sum> shared_factors_, own_factors_;
    Support start_ = 0;
    std::vector<uint16_t> map_;
};

}  // namespace lithostream::unmixing
