// What every spectrum of one table needs, made once: the table in columns of length 1, and for each set of
// endmembers the operator that gives their shares. As support.h, but laid out for threads.
#pragma once

#include "unmixing/gpu_factors.h"

namespace lithostream::unmixing {

constexpr int kMostTabled = 12;  // endmembers, as MOST_TABLED in cuda.py
// Squared distance of a unit column to the span of the others: below the first the normal equations are not
// trusted, below the second their solution is corrected once on the rows.
constexpr double kLeastPivot = 1e-9;
constexpr double kRoundPivot = 1e-2;
constexpr double kWidestRange = 1e12;  // of squared lengths with the sum
constexpr double kLeastSquare = 1e-200, kMostSquare = 1e200;

// Doubles, one after the other; `width` is the number of endmembers or more, the rest are columns of zeros.
// Row `channels` is that of the sum. An operator has a row for each, then the least distance of a column to
// the span of those before (-1 where it cannot be used) and whether to correct. Its odd length keeps threads
// that read different operators on different banks.
struct Table {
    double* at;
    int channels, width;

    static constexpr int kUsable = 0, kRows = 1, kHeight = 2, kLongest = 3, kHead = 4;

    __device__ double& head(int i) const { return at[i]; }
    __device__ double* inverse() const { return at + kHead; }
    __device__ double* scale() const { return inverse() + width; }
    __device__ double* root() const { return scale() + width; }
    __device__ double* row(int i) const { return root() + channels + i * width; }
    __device__ double* supports() const { return row(channels + 1); }
    __device__ int stride() const { return (channels + 1) * width + 3; }
    __device__ double* support(unsigned set) const {
        return supports() + static_cast<long long>(set) * stride();
    }
    __device__ double& nearest(double* found) const { return found[stride() - 3]; }
    __device__ double& corrects(double* found) const { return found[stride() - 2]; }
};

// Lengths of the columns; a block of threads.
__device__ inline void measure(const Table& table, const double* values, const double* weights, int count,
                               bool sum, double* square) {
    for (int b = threadIdx.x; b < table.channels; b += blockDim.x) table.root()[b] = sqrt(weights[b]);
    __syncthreads();
    for (int j = threadIdx.x; j < table.width; j += blockDim.x) {
        square[j] = 0;
        for (int b = 0; b < table.channels; ++b) {
            const double value = j < count ? table.root()[b] * values[j * table.channels + b] : 0;
            table.row(b)[j] = value;
            square[j] += value * value;
        }
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    double least = kMostSquare, most = 0, rows = 0;
    bool usable = true;
    for (int j = 0; j < count; ++j) {
        if (square[j] > 0) least = fmin(least, square[j]);
        most = fmax(most, square[j]);
        usable = usable && square[j] < kMostSquare;
    }
    for (int b = 0; b < table.channels; ++b) rows += table.root()[b] > 0;
    table.head(Table::kUsable) = usable && least > kLeastSquare && (!sum || most < kWidestRange * least);
    table.head(Table::kRows) = rows;
    // Between the shortest and the longest column the sum keeps all of them apart.
    table.head(Table::kHeight) = sum ? sqrt(sqrt(least) * sqrt(most)) : 0;
    table.head(Table::kLongest) = sqrt(most);
}

__device__ inline void normalise(const Table& table, int count, const double* square, double* gram) {
    const double height = table.head(Table::kHeight);
    for (int j = threadIdx.x; j < table.width; j += blockDim.x) {
        const double scale = sqrt(square[j] + height * height);
        table.scale()[j] = scale;
        table.inverse()[j] = j < count && scale > 0 ? 1 / scale : 0;
        table.row(table.channels)[j] = table.inverse()[j];
        for (int b = 0; b < table.channels; ++b) table.row(b)[j] *= table.inverse()[j];
    }
    __syncthreads();
    for (int cell = threadIdx.x; cell < count * count; cell += blockDim.x) {
        const int j = cell / count, k = cell % count;
        double product = height * table.inverse()[j] * (height * table.inverse()[k]);
        for (int b = 0; b < table.channels; ++b) product += table.row(b)[j] * table.row(b)[k];
        gram[cell] = product;
    }
}

// The operator of one set of endmembers; a thread. Its Cholesky factor is in the lane, with the reciprocals
// of the diagonal in place, by rows of the triangle.
class Operator {
  public:
    __device__ Operator(const Table& table, const double* gram, int count, unsigned set, const Lane& lower)
        : table_(table), gram_(gram), count_(count), lower_(lower), found_(table.support(set)) {
        for (int j = 0; j < count; ++j)
            if (set >> j & 1) member_ |= static_cast<unsigned long long>(j) << 4 * size_++;
    }

    __device__ void build(bool sum) const {
        for (int i = 0; i < table_.stride(); ++i) found_[i] = 0;
        table_.nearest(found_) = -1;
        if (size_ > table_.head(Table::kRows) + sum || (sum && size_ == 0) || !decompose()) return;
        double* last = found_ + table_.channels * table_.width;
        if (sum) {
            double total = 0;
            substitute(table_.inverse(), last);
            for (int k = 0; k < size_; ++k) total += table_.inverse()[member(k)] * last[member(k)];
            for (int k = 0; k < size_; ++k) last[member(k)] /= total;
        }
        for (int b = 0; b < table_.channels; ++b) {
            double *row = found_ + b * table_.width, total = 0;
            substitute(table_.row(b), row);
            if (!sum) continue;
            for (int k = 0; k < size_; ++k) total += table_.inverse()[member(k)] * row[member(k)];
            for (int k = 0; k < size_; ++k) row[member(k)] -= total * last[member(k)];
        }
    }

  private:
    __device__ int member(int k) const { return member_ >> 4 * k & 15; }
    __device__ double& lower(int k, int l) const { return lower_[k * (k + 1) / 2 + l]; }

    __device__ bool decompose() const {
        double least = 1, nearest = table_.head(Table::kLongest) + table_.head(Table::kHeight);
        for (int k = 0; k < size_; ++k)
            for (int l = 0; l <= k; ++l) {
                double sum = gram_[member(k) * count_ + member(l)];
                for (int m = 0; m < l; ++m) sum -= lower(k, m) * lower(l, m);
                if (l < k) {
                    lower(k, l) = sum * lower(l, l);
                    continue;
                }
                if (!(sum > kLeastPivot)) return false;
                const double root = sqrt(sum);
                least = fmin(least, sum);
                nearest = fmin(nearest, root * table_.scale()[member(k)]);
                lower(k, k) = 1 / root;
            }
        table_.nearest(found_) = nearest;
        table_.corrects(found_) = least < kRoundPivot;
        return true;
    }

    // Solves with the Gram matrix on the members.
    __device__ void substitute(const double* right, double* x) const {
        for (int k = 0; k < size_; ++k) {
            double sum = right[member(k)];
            for (int m = 0; m < k; ++m) sum -= lower(k, m) * x[member(m)];
            x[member(k)] = sum * lower(k, k);
        }
        for (int k = size_ - 1; k >= 0; --k) {
            double sum = x[member(k)];
            for (int m = k + 1; m < size_; ++m) sum -= lower(m, k) * x[member(m)];
            x[member(k)] = sum * lower(k, k);
        }
    }

    const Table table_;
    const double* gram_;
    const int count_;
    const Lane lower_;
    double* const found_;
    unsigned long long member_ = 0;  // four bits each
    int size_ = 0;
};

}  // namespace lithostream::unmixing
