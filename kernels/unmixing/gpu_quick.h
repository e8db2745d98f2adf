// One thread exchanges endmembers of a table of operators until the optimality conditions prove the answer on
// the rows, as pivot.h. What it cannot prove it leaves to the exact solver.
#pragma once

#include "unmixing/gpu_table.h"

namespace lithostream::unmixing {

constexpr double kCertificate = 1e-14;   // gradient allowed per unit of |b|_1 + sum of the scaled shares
constexpr double kTie = 1e-9;            // an endmember at 0 this close to balance could be in use
constexpr double kSureDistance = 1e-8;   // of a column to the others, per size of all that is subtracted
constexpr double kSumTolerance = 5e-14;  // rounding that the last division takes out of the sum
constexpr int kWholesaleSteps = 4;       // then endmembers enter one by one
constexpr double kMostValue = 1e100, kLeastValue = 1e-100;  // whose squares are safe

template <int Width>
class Quick {
  public:
    __device__ Quick(const Table& table, int count, bool sum, const double* spectrum)
        : table_(table), count_(count), sum_(sum), spectrum_(spectrum) {}

    // The flag of the solution, or -1 where it is not proved.
    __device__ int solve() {
        if (!read()) return -1;
        const int rows = static_cast<int>(table_.head(Table::kRows)) + sum_;
        const unsigned all = (1u << count_) - 1;
        const bool fits = count_ <= rows;
        support_ = fits && table_.nearest(table_.support(all)) >= 0 ? all
                   : sum_                                           ? 1u << nearest_endmember()
                                                                    : 0;
        for (int step = 0; step < 3 * Width; ++step) {
            double* found = table_.support(support_);
            if (!(table_.nearest(found) >= 0)) return -1;
            apply(found);
            unsigned negative = signs();
            if (!negative && table_.corrects(found) > 0) {
                correct(found);
                negative = signs();
            }
            if (negative) {
                support_ &= ~negative;
                continue;
            }
            look();
            const unsigned entering = wanted();
            if (!entering) return balanced() || improve(found) ? flag(rows, found) : -1;
            support_ |= fits && step < kWholesaleSteps ? entering : steepest(entering);
        }
        return -1;
    }

    // False where the abundances are not to be trusted.
    __device__ bool store(double* abundances, double* residual) {
        double sum = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            x_[j] *= table_.inverse()[j];
            sum += x_[j];
        }
        if (!(sum_ ? fabs(sum - 1) <= kSumTolerance : isfinite(sum))) return false;
#pragma unroll
        for (int j = 0; j < Width; ++j)
            if (j < count_) abundances[j] = sum_ ? x_[j] / sum : x_[j];
        *residual = sqrt(square_);
        return true;
    }

  private:
    __device__ double value(int b) const {
        const double root = table_.root()[b];
        return root > 0 ? root * spectrum_[b] : 0;
    }

    // False where a value is missing or has no safe square.
    __device__ bool read() {
        double largest = 0;
        for (int b = 0; b < table_.channels; ++b) {
            const double size = fabs(value(b));
            if (!(size < kMostValue)) return false;
            largest = fmax(largest, size);
            size_ += size;
            spectrum_square_ += size * size;
        }
        return largest == 0 || largest > kLeastValue;
    }

    __device__ int nearest_endmember() {
        double far[Width];
        distances(far);
        int best = 0;
        double least = far[0];
#pragma unroll
        for (int j = 1; j < Width; ++j)
            if (j < count_ && far[j] < least) least = far[best = j];
        return best;
    }

    // Squared, of the endmembers to the spectrum.
    __device__ void distances(double* far) const {
#pragma unroll
        for (int j = 0; j < Width; ++j) far[j] = 0;
        for (int b = 0; b < table_.channels; ++b) {
            const double *row = table_.row(b), here = value(b);
#pragma unroll
            for (int j = 0; j < Width; ++j) {
                const double gap = row[j] * table_.scale()[j] - here;
                far[j] += gap * gap;
            }
        }
    }

    __device__ void apply(const double* found) {
        const double* last = found + table_.channels * Width;
#pragma unroll
        for (int j = 0; j < Width; ++j) x_[j] = last[j];  // 0 without the sum
        for (int b = 0; b < table_.channels; ++b) {
            const double here = value(b);
#pragma unroll
            for (int j = 0; j < Width; ++j) x_[j] += here * found[b * Width + j];
        }
    }

    __device__ double misfit(const double* row, double from) const {
#pragma unroll
        for (int j = 0; j < Width; ++j) from -= row[j] * x_[j];
        return from;
    }

    // One step of iterative refinement on the rows.
    __device__ void correct(const double* found) {
        double step[Width];
        const double short_of = sum_ ? misfit(table_.row(table_.channels), 1) : 0;
        const double* last = found + table_.channels * Width;
#pragma unroll
        for (int j = 0; j < Width; ++j) step[j] = short_of * last[j];
        for (int b = 0; b < table_.channels; ++b) {
            const double gap = misfit(table_.row(b), value(b));
#pragma unroll
            for (int j = 0; j < Width; ++j) step[j] += gap * found[b * Width + j];
        }
#pragma unroll
        for (int j = 0; j < Width; ++j) x_[j] += step[j];
    }

    __device__ unsigned signs() const {
        unsigned negative = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j) negative |= x_[j] < 0 ? 1u << j : 0;
        return negative;
    }

    // Gradients and the rounding allowed in them.
    __device__ void look() {
        square_ = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j) gain_[j] = 0;
        for (int b = 0; b < table_.channels; ++b) {
            const double *row = table_.row(b), gap = misfit(row, value(b));
            square_ += gap * gap;
#pragma unroll
            for (int j = 0; j < Width; ++j) gain_[j] += gap * row[j];
        }
        double total = size_, multiplier = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            total += x_[j];
            multiplier += gain_[j] * x_[j];
        }
#pragma unroll
        for (int j = 0; j < Width; ++j)
            if (sum_) gain_[j] -= multiplier * table_.inverse()[j];
        allowed_ = kCertificate * total;
    }

    __device__ unsigned wanted() const {
        unsigned entering = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j) entering |= gain_[j] > allowed_ ? 1u << j : 0;
        return entering & ~support_;
    }

    __device__ unsigned steepest(unsigned entering) const {
        unsigned best = 0;
        double most = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j)
            if ((entering >> j & 1) && gain_[j] > most) {
                most = gain_[j];
                best = 1u << j;
            }
        return best;
    }

    __device__ bool balanced() const {
        bool all = true;
#pragma unroll
        for (int j = 0; j < Width; ++j) all &= !(support_ >> j & 1) || fabs(gain_[j]) <= allowed_;
        return all;
    }

    // A second opinion where rounding alone may have failed the proof.
    __device__ bool improve(const double* found) {
        correct(found);
        if (signs()) return false;
        look();
        return !wanted() && balanced();
    }

    // Whether the data decide, or -1 where the exact solver has to say: with the sum, its measure of a
    // gradient lies between 0.35 and 1 times gain / far^2.
    __device__ int flag(int rows, double* found) {
        double most = 0;
        if (sum_) {
            double far[Width];
            distances(far);
#pragma unroll
            for (int j = 0; j < Width; ++j)
                if (j < count_) most = fmax(most, far[j]);
        }
        const double length = sqrt(spectrum_square_);
        unsigned open = support_, unsure = 0;
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            if (j >= count_ || (support_ >> j & 1)) continue;
            const double unit = kTie * (sum_ ? most * table_.inverse()[j] : length);
            if (gain_[j] >= -0.99 * unit)
                open |= 1u << j;
            else if (gain_[j] > -fmax((sum_ ? 3 : 1.01) * unit, allowed_))
                unsure |= 1u << j;
        }
        if (unsure) return -1;
        if (__popc(open) > rows) return 1;
        const double nearest = table_.nearest(table_.support(open));
        const double size = sqrt(most) + length + table_.head(Table::kHeight) + table_.head(Table::kLongest);
        return nearest >= 0 && (!sum_ || nearest > kSureDistance * size) ? 0 : -1;
    }

    const Table table_;
    const int count_;
    const bool sum_;
    const double* spectrum_;
    unsigned support_ = 0;
    double size_ = 0, spectrum_square_ = 0, square_ = 0, allowed_ = 0;
    double x_[Width], gain_[Width];
};

}  // namespace lithostream::unmixing
