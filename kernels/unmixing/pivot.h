// Finds the support by exchange and proves it by the optimality conditions on the rows. What it cannot prove
// it leaves to the exact solver, so that its choice of steps decides the speed alone.
#pragma once

#include <memory>
#include <vector>

#include "unmixing/problem.h"
#include "unmixing/support.h"

namespace lithostream::unmixing {

// Gradient allowed per unit of |b|_1 + sum of the scaled shares: rounding of the rows.
constexpr double kCertificate = 1e-14;
// Between these two multiples of kTieTolerance the exact solver decides whether an endmember could be in use.
constexpr double kTieBelow = 1.01, kTieAbove = 0.99;
constexpr int kWholesaleSteps = 4;  // then endmembers enter one by one
// A column this far from the others, per size of all that is subtracted, is independent for `determined`.
constexpr double kSureDistance = 1e-8;

template <int E>
double product(const double* a, const double* b) {
    double part[4] = {};
    for (int j = 0; j < E; j += 4)
        for (int k = 0; k < 4; ++k) part[k] += a[j + k] * b[j + k];
    return (part[0] + part[1]) + (part[2] + part[3]);
}

// Factors of one table at a time, up to 2^bits of them, by support.
template <int E, bool Sum>
class Factors {
  public:
    Factors(int bits, const Settings& settings)
        : bits_(std::min(bits, settings.endmembers)),
          rows_(settings.channels + Sum),
          slots_(size_t{1} << bits_) {}

    // Before another table.
    void forget() { ++table_; }

    const Factor<E>& find(const Table<E>& table, Support support) {
        Slot& slot = slots_[(support ^ support >> bits_) & (slots_.size() - 1)];
        if (!slot.factor) slot.factor.reset(new Factor<E>(rows_));
        if (slot.table == table_ && slot.factor->support == support) return *slot.factor;
        slot.table = table_;
        slot.factor->template build<Sum>(table, support);
        return *slot.factor;
    }

  private:
    struct Slot {
        int64_t table = -1;
        std::unique_ptr<Factor<E>> factor;
    };

    int bits_, rows_;
    int64_t table_ = 0;
    std::vector<Slot> slots_;
};

template <int E, bool Sum>
class Pivot {
  public:
    Pivot(const Table<E>& table, Factors<E, Sum>& factors) : table_(table), factors_(factors) {}

    const double* x() const { return x_; }
    Support support() const { return support_; }
    double residual() const { return std::sqrt(square_); }

    // `b` has rows values, and 1 with the sum. False where the support could not be proved.
    bool solve(const double* b, Support start) {
        b_ = b;
        support_ = start;
        size_ = square_ = 0;
        for (int i = 0; i < table_.rows; ++i) {
            size_ += std::abs(b[i]);
            square_ += b[i] * b[i];
        }
        b_square_ = square_;
        for (int step = 0; step < 3 * E; ++step) {
            const Factor<E>& factor = factors_.find(table_, support_);
            if (!factor.usable) return false;
            nearest_ = factor.nearest;
            apply(factor, b);
            Support negative = signs();
            if (!negative && factor.correct) {
                correct(factor);
                negative = signs();
            }
            if (negative) {
                support_ &= ~negative;
                continue;
            }
            const Support entering = gain(step);
            if (!entering) return balanced() || (improve(factor, step) && balanced());
            support_ |= entering;
        }
        return false;
    }

    // The flag of the solution, or -1 where the exact solver has to say.
    int flag() {
        // With the sum, the exact solver's gain lies between 0.35 and 1 times gain / far^2.
        const double far = Sum ? farthest() : 0;
        Support open = support_;
        for (int j = 0; j < table_.count; ++j) {
            if (open >> j & 1) continue;
            const double unit = Sum ? far * far * table_.inverse[j] : std::sqrt(b_square_);
            if (gain_[j] >= -kTieTolerance * kTieAbove * unit)
                open |= Support{1} << j;
            else if (gain_[j] > -std::max(kTieTolerance * (Sum ? 3 : kTieBelow) * unit, allowed_))
                return -1;
        }
        if (__builtin_popcount(open) > table_.rows + Sum) return kUnderdetermined;
        if (open != support_) {
            const Factor<E>& factor = factors_.find(table_, open);
            if (!factor.usable) return -1;
            nearest_ = factor.nearest;
        }
        const double size = far + std::sqrt(b_square_) + table_.height + table_.longest;
        return !Sum || nearest_ > kSureDistance * size ? 0 : -1;
    }

  private:
    void apply(const Factor<E>& factor, const double* b) {
        double x[E] = {};
        for (int i = 0; i < table_.rows + Sum; ++i)
            for (int j = 0; j < E; ++j) x[j] += b[i] * factor.rows[i][j];
        std::copy_n(x, E, x_);
        for (int i = 0; i < table_.rows + Sum; ++i) misfit_[i] = b[i] - product<E>(table_.at[i], x_);
    }

    // One step of iterative refinement on the rows.
    void correct(const Factor<E>& factor) {
        double step[E] = {};
        for (int i = 0; i < table_.rows + Sum; ++i)
            for (int j = 0; j < E; ++j) step[j] += misfit_[i] * factor.rows[i][j];
        for (int j = 0; j < E; ++j) x_[j] += step[j];
        for (int i = 0; i < table_.rows; ++i) misfit_[i] -= product<E>(table_.at[i], step);
    }

    // A second opinion where rounding alone may have failed the proof.
    bool improve(const Factor<E>& factor, int step) {
        correct(factor);
        return !signs() && !gain(step);
    }

    Support signs() const {
        Support negative = 0;
        for (int j = 0; j < E; ++j) negative |= x_[j] < 0 ? Support{1} << j : 0;
        return negative;
    }

    // Gradients, and the endmembers that should enter.
    Support gain(int step) {
        double gain[E] = {}, total = size_, multiplier = 0;
        square_ = 0;
        for (int i = 0; i < table_.rows; ++i) {
            square_ += misfit_[i] * misfit_[i];
            for (int j = 0; j < E; ++j) gain[j] += misfit_[i] * table_.at[i][j];
        }
        for (int j = 0; j < E; ++j) total += x_[j];
        if (Sum) {
            multiplier = product<E>(gain, x_);
            for (int j = 0; j < E; ++j) gain[j] -= multiplier * table_.inverse[j];
        }
        std::copy_n(gain, E, gain_);
        allowed_ = kCertificate * total;
        Support entering = 0;
        for (int j = 0; j < E; ++j) entering |= gain[j] > allowed_ ? Support{1} << j : 0;
        entering &= ~support_;
        if (!entering || (step < kWholesaleSteps && table_.count <= table_.rows + Sum)) return entering;
        int best = __builtin_ctz(entering);
        for (int j = best; j < table_.count; ++j)
            if ((entering >> j & 1) && gain[j] > gain[best]) best = j;
        return Support{1} << best;
    }

    bool balanced() const {
        for (int j = 0; j < table_.count; ++j)
            if ((support_ >> j & 1) && !(std::abs(gain_[j]) <= allowed_)) return false;
        return true;
    }

    // Of the farthest endmember to the spectrum.
    double farthest() const {
        double square[E] = {}, most = 0;
        for (int i = 0; i < table_.rows; ++i)
            for (int j = 0; j < E; ++j) {
                const double gap = table_.at[i][j] * table_.scale[j] - b_[i];
                square[j] += gap * gap;
            }
        for (int j = 0; j < table_.count; ++j) most = std::max(most, square[j]);
        return std::sqrt(most);
    }

    const Table<E>& table_;
    Factors<E, Sum>& factors_;
    Support support_ = 0;
    double size_ = 0, square_ = 0, b_square_ = 0, allowed_ = 0, nearest_ = 0;
    alignas(32) double x_[E], gain_[E];
    const double* b_ = nullptr;
    double misfit_[kMaxChannels + 1];
};

}  // namespace lithostream::unmixing
