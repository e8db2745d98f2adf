// The least-squares solution on one support, ready to apply to any right side of the same table.
#pragma once

#include <cstdint>
#include <vector>

#include "unmixing/active_set.h"
#include "unmixing/clones.h"

namespace lithostream::unmixing {

// Squared distance of a unit column to the span of the others. Below the first the normal equations are not
// trusted; below the second their solution is corrected once on the rows.
constexpr double kLeastPivot = 1e-9;
constexpr double kRoundPivot = 1e-2;
// With the sum, squared lengths this far apart: the shortest columns would lose their digits.
constexpr double kWidestRange = 1e12;
constexpr int kSafeExponent = 300;  // numbers whose squares neither overflow nor vanish

using Support = uint32_t;  // bit j: endmember j may be in use

// 0, or the power of two that brings `largest` near 1 where its square would leave the range of double.
inline int rescue(double largest) {
    const int exponent = std::ilogb(largest);
    return std::abs(exponent) > kSafeExponent ? -exponent : 0;
}

// One table by channels, columns scaled to length 1 and padded with zero columns to E. With the sum, one more
// row holds the sum of scaled shares, and the columns count `height` times that row in their length.
template <int E>
struct Table {
    int rows = 0, count = 0, shift = 0;
    bool usable = false;
    double height = 0, longest = 0;
    alignas(32) double at[kMaxChannels + 1][E];
    alignas(32) double gram[E][E];
    alignas(32) double scale[E], inverse[E];

    // `at` holds rows x count weighted values.
    template <bool Sum>
    LITHOSTREAM_CLONES void finish() {
        usable = false;
        double most[E] = {};  // by column: one chain of maxima would be waited for link by link
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < E; ++j) most[j] = std::max(most[j], std::abs(at[i][j]));
        const double largest = *std::max_element(most, most + E);
        if (!(largest > 0 && std::isfinite(largest))) return;
        shift = rescue(largest);
        for (int i = 0; shift != 0 && i < rows; ++i)
            for (int j = 0; j < E; ++j) at[i][j] = std::ldexp(at[i][j], shift);
        usable = measure<Sum>();
        if (usable) multiply<Sum>();
    }

  private:
    template <bool Sum>
    LITHOSTREAM_PART bool measure() {
        double square[E] = {};
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < E; ++j) square[j] += at[i][j] * at[i][j];
        double least = std::numeric_limits<double>::infinity(), most = 0;
        for (int j = 0; j < count; ++j) {
            if (square[j] > 0) least = std::min(least, square[j]);
            most = std::max(most, square[j]);
        }
        // Between the shortest and the longest column the sum keeps all of them apart.
        const double added = Sum ? std::sqrt(least) * std::sqrt(most) : 0;
        height = std::sqrt(added);
        longest = std::sqrt(most);
        for (int j = 0; j < E; ++j) {
            scale[j] = std::sqrt(square[j] + added);
            inverse[j] = j < count && scale[j] > 0 ? 1 / scale[j] : 0;
        }
        return least > 1e-200 && (!Sum || most < kWidestRange * least);
    }

    template <bool Sum>
    LITHOSTREAM_PART void multiply() {
        for (int j = 0; j < E; ++j)
            for (int k = 0; k < E; ++k) gram[j][k] = Sum ? height * inverse[j] * (height * inverse[k]) : 0;
        for (int i = 0; i < rows; ++i) {
            for (int j = 0; j < E; ++j) at[i][j] *= inverse[j];
            for (int j = 0; j < E; ++j)
                for (int k = 0; k < E; ++k) gram[j][k] += at[i][j] * at[i][k];
        }
        if (Sum) std::copy_n(inverse, E, at[rows]);
    }
};

// Rows of the inverse: coefficients = sum_i b_i * rows[i]. With the sum, b has a 1 more at its end.
template <int E>
struct Factor {
    Support support = 0;
    bool usable = false, correct = false;
    double nearest = 0;  // least distance of a column, as long as it is, to the span of those before
    std::vector<std::array<double, E>> rows;  // as many as the tables have

    explicit Factor(int most_rows) : rows(most_rows) {}

    template <bool Sum>
    LITHOSTREAM_CLONES void build(const Table<E>& table, Support wanted) {
        support = wanted;
        int member[E], size = 0;
        for (int j = 0; j < table.count; ++j)
            if (wanted >> j & 1) member[size++] = j;
        double lower[E][E];
        usable = size <= table.rows + Sum && decompose(table, member, size, lower);
        if (!usable) return;
        alignas(32) double inverse[E][E] = {};
        invert(lower, size, inverse);
        double last[E] = {};
        if (Sum) border(table, member, size, inverse, last);
        for (int i = 0; i < table.rows; ++i) {
            double row[E] = {};
            for (int l = 0; l < size; ++l)
                for (int k = 0; k < E; ++k) row[k] += table.at[i][member[l]] * inverse[l][k];
            spread(row, member, size, rows[i].data());
        }
        if (Sum) spread(last, member, size, rows[table.rows].data());
    }

  private:
    // Cholesky factor with the reciprocals of its diagonal in place; false where a pivot is too small.
    LITHOSTREAM_PART bool decompose(const Table<E>& table, const int* member, int size, double (*lower)[E]) {
        double least = 1;
        nearest = std::numeric_limits<double>::infinity();
        for (int k = 0; k < size; ++k)
            for (int l = 0; l <= k; ++l) {
                double sum = table.gram[member[k]][member[l]];
                for (int m = 0; m < l; ++m) sum -= lower[k][m] * lower[l][m];
                if (l < k) {
                    lower[k][l] = sum * lower[l][l];
                    continue;
                }
                if (!(sum > kLeastPivot)) return false;
                least = std::min(least, sum);
                const double root = std::sqrt(sum);
                nearest = std::min(nearest, root * table.scale[member[k]]);
                lower[k][k] = 1 / root;
            }
        correct = least < kRoundPivot;
        return true;
    }

    // inverse = (L L')^-1, by whole rows
    static LITHOSTREAM_PART void invert(double (*lower)[E], int size, double (*inverse)[E]) {
        alignas(32) double half[E][E] = {};  // L^-1
        for (int k = 0; k < size; ++k) {
            half[k][k] = 1;
            for (int m = 0; m < k; ++m)
                for (int l = 0; l < E; ++l) half[k][l] -= lower[k][m] * half[m][l];
            for (int l = 0; l < E; ++l) half[k][l] *= lower[k][k];
            for (int m = 0; m <= k; ++m)
                for (int l = 0; l < E; ++l) inverse[m][l] += half[k][m] * half[k][l];
        }
    }

    static LITHOSTREAM_PART void spread(const double* row, const int* member, int size, double* out) {
        std::fill_n(out, E, 0.0);
        for (int k = 0; k < size; ++k) out[member[k]] = row[k];
    }

    // The multiplier of the sum, eliminated: inverse - w w' / e'w with w = inverse e, and w / e'w for the 1.
    static LITHOSTREAM_PART void border(const Table<E>& table, const int* member, int size,
                                        double (*inverse)[E], double* last) {
        double w[E], total = 0;
        for (int k = 0; k < size; ++k) {
            w[k] = 0;
            for (int l = 0; l < size; ++l) w[k] += inverse[k][l] * table.inverse[member[l]];
            total += table.inverse[member[k]] * w[k];
        }
        for (int k = 0; k < size; ++k) last[k] = w[k] / total;
        for (int k = 0; k < size; ++k)
            for (int l = 0; l < size; ++l) inverse[k][l] -= w[k] * last[l];
    }
};

}  // namespace lithostream::unmixing
