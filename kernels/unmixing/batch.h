// A run of spectra: the quick way where its proof holds, the exact solver for everything else.
#pragma once

#include "unmixing/pivot.h"
#include "unmixing/search.h"

namespace lithostream::unmixing {

// Rounding allowed in a sum that the last division makes 1: it moves the misfit as well.
constexpr double kSumTolerance = 5e-14;
constexpr int kCacheBits = 12, kTableBits = 6;  // of the supports whose factors are kept
constexpr int kMapChannels = 3;
constexpr int kMapCells = 256;  // per side

struct Batch {
    Settings settings;
    const double *spectra, *tables, *weights;
    int64_t table_step, weight_step;  // 0 where shared
    int64_t each;                     // spectra that follow each other on one table
    double *abundances, *residual;
    uint8_t* flags;

    const double* spectrum(int64_t p) const { return spectra + p * settings.channels; }
    const double* table(int64_t p) const { return tables + p / each * table_step; }
    const double* weight(int64_t p) const { return weights + p / each * weight_step; }

    void solve_exactly(int64_t p) const {
        Problem problem(settings, spectrum(p), table(p), weight(p));
        flags[p] = problem.solve(abundances + p * settings.endmembers, residual + p);
    }
};

// A table on the channels with a weight and, if it serves one spectrum, with a value.
template <int E>
struct View {
    int measured = 0;
    std::array<int, kMaxChannels> channel;
    std::array<double, kMaxChannels> root;
    Table<E> table;

    void select(int channels, const double* weights, const double* spectrum) {
        measured = 0;
        for (int b = 0; b < channels; ++b)
            if (weights[b] > 0 && !(spectrum && std::isnan(spectrum[b]))) {
                channel[measured] = b;
                root[measured++] = std::sqrt(weights[b]);
            }
    }

    template <bool Sum>
    void fill(int channels, int count, const double* values) {
        table.rows = measured;
        table.count = count;
        for (int i = 0; i < measured; ++i)
            for (int j = 0; j < E; ++j)
                table.at[i][j] = j < count ? root[i] * values[j * channels + channel[i]] : 0;
        table.template finish<Sum>();
    }

    bool serves(const double* spectrum) const {
        bool missing = false;
        for (int i = 0; i < measured; ++i) missing |= std::isnan(spectrum[channel[i]]);
        return !missing;
    }

    // Whether the channels of the view are those the spectrum has, no fewer either.
    bool fits(int channels, const double* weights, const double* spectrum) const {
        int own = 0;
        for (int b = 0; b < channels; ++b) own += weights[b] > 0 && !std::isnan(spectrum[b]);
        return own == measured && serves(spectrum);
    }
};

// The spectrum on the rows of a view, times 2^shift, and a 1 for the sum.
struct Right {
    double b[kMaxChannels + 1];
    double largest = 0;
    int shift = 0;

    // False beyond what squares can hold.
    template <int E, bool Sum>
    bool read(const View<E>& view, const double* spectrum) {
        const Table<E>& table = view.table;
        largest = 0;
        for (int i = 0; i < table.rows; ++i) {
            b[i] = view.root[i] * spectrum[view.channel[i]];
            largest = std::max(largest, std::abs(b[i]));
        }
        if (!std::isfinite(largest)) return false;
        shift = Sum ? table.shift : largest > 0 ? rescue(largest) : 0;
        for (int i = 0; shift != 0 && i < table.rows; ++i) b[i] = std::ldexp(b[i], shift);
        b[table.rows] = 1;
        return !(Sum && largest > 0 && rescue(std::ldexp(largest, shift)) != 0);
    }
};

template <int E, bool Sum>
class Runner {
  public:
    explicit Runner(const Batch& batch)
        : batch_(batch),
          shared_factors_(kCacheBits, batch.settings),
          table_factors_(kTableBits, batch.settings),
          own_factors_(0, batch.settings) {
        group_.count = batch.settings.endmembers;
        group_.sum = Sum;
        if (batch.table_step != 0 || batch.weight_step != 0) return;
        shared_.select(batch.settings.channels, batch.weights, nullptr);
        shared_.template fill<Sum>(batch.settings.channels, batch.settings.endmembers, batch.tables);
        const Table<E>& table = shared_.table;
        if (!table.usable) return;
        const Support all = (Support{1} << table.count) - 1;
        if (table.count <= table.rows + Sum && shared_factors_.find(table, all).usable)
            start_ = all;
        else if (!Sum && table.rows == kMapChannels)
            map_.assign(kMapCells * kMapCells, kUnknown);
    }

    // Of whole tables where several spectra follow each other on one.
    void run(int64_t first, int64_t last) {
        for (int64_t p = first; batch_.each > 1 && p < last; p += batch_.each) serve(p);
        for (int64_t p = first; batch_.each == 1 && p < last; ++p) {
            const double* spectrum = batch_.spectrum(p);
            if (shared_.table.usable && shared_.serves(spectrum)) {
                Right right;
                if (!right.read<E, Sum>(shared_, spectrum) ||
                    !attempt(p, shared_.table, shared_factors_, right, guess(right.b)))
                    batch_.solve_exactly(p);
            } else {
                take(p, spectrum);
            }
        }
        while (busy_ != 0) step();
    }

  private:
    static constexpr uint16_t kUnknown = 0xFFFF;
    static constexpr unsigned kAllLanes = (1u << kLanes) - 1;

    // All spectra of a table, from the first on. Each starts from all endmembers: what it is given does not
    // depend on those before, and factors of the supports they met are kept.
    void serve(int64_t first) {
        const Settings& settings = batch_.settings;
        const double* weights = batch_.weight(first);
        View<E>& view = shared_;
        view.select(settings.channels, weights, batch_.spectrum(first));
        view.template fill<Sum>(settings.channels, settings.endmembers, batch_.table(first));
        table_factors_.forget();
        const Support all = (Support{1} << settings.endmembers) - 1;
        const bool usable = view.measured > 0 && view.table.usable;
        for (int64_t p = first; p < first + batch_.each; ++p) {
            const double* spectrum = batch_.spectrum(p);
            if (usable && view.fits(settings.channels, weights, spectrum)) {
                Right right;
                if (!right.read<E, Sum>(view, spectrum) ||
                    !attempt(p, view.table, table_factors_, right, all))
                    batch_.solve_exactly(p);
            } else {
                take(p, spectrum);
            }
        }
    }

    // As one with a table of its own.
    void take(int64_t p, const double* spectrum) {
        if (!queue(p, spectrum)) batch_.solve_exactly(p);
    }

    // One spectrum with a table of its own.
    struct Own {
        int64_t problem;
        View<E> view;
        Right right;
    };

    bool queue(int64_t p, const double* spectrum) {
        const Settings& settings = batch_.settings;
        const int lane = __builtin_ctz(~busy_);
        Own& own = own_[lane];
        own.view.select(settings.channels, batch_.weight(p), spectrum);
        if (own.view.measured == 0) return false;
        own.view.template fill<Sum>(settings.channels, settings.endmembers, batch_.table(p));
        if (!own.view.table.usable || !own.right.template read<E, Sum>(own.view, spectrum)) return false;
        own.problem = p;
        enter(own.view.table, own.right, lane);
        busy_ |= 1u << lane;
        while (busy_ == kAllLanes) step();
        return true;
    }

    // Starts from all endmembers: dropping is cheaper than adding one by one.
    void enter(const Table<E>& table, const Right& right, int lane) {
        double target[E];
        for (int j = 0; j < E; ++j) target[j] = Sum ? table.height * table.height * table.inverse[j] : 0;
        for (int i = 0; i < table.rows; ++i)
            for (int j = 0; j < E; ++j) target[j] += right.b[i] * table.at[i][j];
        for (int j = 0; j < table.count; ++j) {
            group_.target[j][lane] = target[j];
            group_.inverse[j][lane] = table.inverse[j];
            group_.inside[j][lane] = -1;
            for (int k = 0; k <= j; ++k) group_.gram[j][k][lane] = table.gram[j][k];
        }
        group_.left[lane] = kSearchSteps;
        group_.allowed[lane] = kCertificate * right.largest * table.rows;
    }

    void step() {
        for (unsigned done = search(group_) & busy_; done != 0; done &= done - 1) {
            const int lane = __builtin_ctz(done);
            Support found = 0;
            for (int j = 0; j < group_.count; ++j) found |= group_.inside[j][lane] ? Support{1} << j : 0;
            const Own& own = own_[lane];
            own_factors_.forget();
            if (!attempt(own.problem, own.view.table, own_factors_, own.right, found))
                batch_.solve_exactly(own.problem);
            busy_ &= ~(1u << lane);
        }
    }

    bool attempt(int64_t p, const Table<E>& table, Factors<E, Sum>& factors, const Right& right,
                 Support start) {
        Pivot<E, Sum> pivot(table, factors);
        return pivot.solve(right.b, start) && store(p, pivot, table, right.shift);
    }

    bool store(int64_t p, Pivot<E, Sum>& pivot, const Table<E>& table, int shift) const {
        const int flag = pivot.flag();
        if (flag < 0) return false;
        double *x = batch_.abundances + p * table.count, sum = 0;
        for (int j = 0; j < table.count; ++j) {
            x[j] = pivot.x()[j] * table.inverse[j];
            sum += x[j];
        }
        if (Sum && !(std::abs(sum - 1) <= kSumTolerance)) return false;
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
        if (map_.empty() || !(b[0] >= 0 && b[1] >= 0 && b[2] >= 0)) return first(shared_.table, b);
        const double sum = b[0] + b[1] + b[2];
        if (!(sum > 0)) return 0;
        const int row = std::min(static_cast<int>(b[0] / sum * kMapCells), kMapCells - 1);
        const int column = std::min(static_cast<int>(b[1] / sum * kMapCells), kMapCells - 1);
        uint16_t& cell = map_[row * kMapCells + column];
        if (cell == kUnknown) {
            const double u = (row + 0.5) / kMapCells, v = (column + 0.5) / kMapCells;
            const double centre[] = {u, v, std::max(1 - u - v, 0.0), 1};
            Pivot<E, Sum> pivot(shared_.table, shared_factors_);
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
    View<E> shared_;  // by all spectra, or by those of the table in hand
    Factors<E, Sum> shared_factors_, table_factors_, own_factors_;
    Support start_ = 0;
    std::vector<uint16_t> map_;
    unsigned busy_ = 0;  // lanes, one bit each
    std::array<Own, kLanes> own_;
    Group group_;
};

}  // namespace lithostream::unmixing
