// More channels than the solvers hold: an orthogonal change of rows leaves as many as there are endmembers,
// and the same abundances. What it leaves out is seen again in the residual, which is taken on all channels.
#pragma once

#include <vector>

#include "unmixing/batch.h"

namespace lithostream::unmixing {

// Sums in eight parts, side by side.
LITHOSTREAM_CLONES inline double long_dot(const double* a, const double* b, int64_t count) {
    double part[8] = {}, rest = 0;
    const int64_t whole = count / 8 * 8;
    for (int64_t i = 0; i < whole; i += 8)
        for (int k = 0; k < 8; ++k) part[k] += a[i + k] * b[i + k];
    for (int64_t i = whole; i < count; ++i) rest += a[i] * b[i];
    return (((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]))) + rest;
}

// y -= factor * x
LITHOSTREAM_CLONES inline void subtract(double factor, const double* x, double* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] -= factor * x[i];
}

// Euclidean norm, by the careful way only where squares leave the range of double.
inline double long_norm(const double* a, int64_t count) {
    const double square = long_dot(a, a, count);
    return square > 1e-280 && square < 1e280 ? std::sqrt(square) : norm(a, static_cast<int>(count));
}

// Q R of one table on the channels with a weight and, if it serves one spectrum, with a value.
class Narrowed {
  public:
    // A null `spectrum` stands for one measured on all channels.
    void build(const Settings& settings, const double* spectrum, const double* table, const double* weights) {
        channel_.clear();
        root_.clear();
        for (int b = 0; b < settings.channels; ++b)
            if (weights[b] > 0 && !(spectrum && std::isnan(spectrum[b]))) {
                channel_.push_back(b);
                root_.push_back(std::sqrt(weights[b]));
            }
        const int64_t measured = channel_.size();
        const int count = settings.endmembers;
        columns_.resize(measured * count);
        for (int j = 0; j < count; ++j)
            for (int64_t i = 0; i < measured; ++i)
                columns_[j * measured + i] = root_[i] * table[int64_t{j} * settings.channels + channel_[i]];
        decompose(count, measured);
    }

    bool serves(const double* spectrum) const {
        bool missing = false;
        for (const int b : channel_) missing |= std::isnan(spectrum[b]);
        return !missing;
    }

    uint8_t solve(const Settings& settings, const double* spectrum, double* x, double* residual,
                  std::vector<double>& values) const {
        const int count = settings.endmembers;
        const int64_t measured = channel_.size();
        double narrow[kMaxEndmembers], ones[kMaxEndmembers];
        std::fill_n(ones, count, 1.0);
        values.resize(measured);
        for (int64_t i = 0; i < measured; ++i) values[i] = root_[i] * spectrum[channel_[i]];
        for (int k = 0; k < count; ++k) {
            narrow[k] = measured > 0 ? long_dot(&basis_[k * measured], values.data(), measured) : kNaN;
            // Not a number is not measured, but this is beyond the range of double.
            if (measured > 0 && std::isnan(narrow[k])) narrow[k] = std::numeric_limits<double>::infinity();
        }
        const Settings inner{count, count, settings.sum_to_one, settings.ridge};
        const uint8_t flag = Problem(inner, narrow, triangle_.data(), ones).solve(x, residual);
        if (flag >= kAllMissing) return flag;
        for (int j = 0; j < count; ++j)
            if (x[j] > 0) subtract(x[j], &columns_[j * measured], values.data(), measured);
        *residual = long_norm(values.data(), measured);
        return flag;
    }

  private:
    // Gram-Schmidt, each column again until a pass takes less than half of it (Daniel et al. 1976, Kahan's
    // criterion): the basis is orthogonal to rounding.
    void decompose(int count, int64_t measured) {
        basis_ = columns_;
        triangle_.assign(count * count, 0.0);  // [endmember][basis vector]
        for (int j = 0; j < count; ++j) {
            double *q = &basis_[j * measured], largest = 0;
            for (int64_t i = 0; i < measured; ++i) largest = std::max(largest, std::abs(q[i]));
            if (!std::isfinite(largest)) triangle_[j * count + j] = largest;
            if (!(largest > 0 && std::isfinite(largest))) continue;
            const int shift = rescue(largest);
            for (int64_t i = 0; shift != 0 && i < measured; ++i) q[i] = std::ldexp(q[i], shift);
            double length = std::sqrt(long_dot(q, q, measured)), before;
            do {
                before = length;
                for (int k = 0; k < j; ++k) {
                    const double part = long_dot(&basis_[k * measured], q, measured);
                    subtract(part, &basis_[k * measured], q, measured);
                    triangle_[j * count + k] += part;
                }
                length = std::sqrt(long_dot(q, q, measured));
            } while (j > 0 && length > 0 && length < before / 2);
            triangle_[j * count + j] = length;
            for (int64_t i = 0; length > 0 && i < measured; ++i) q[i] /= length;
            for (int k = 0; k <= j; ++k)
                triangle_[j * count + k] = std::ldexp(triangle_[j * count + k], -shift);
        }
    }

    std::vector<int> channel_;
    std::vector<double> root_, columns_, basis_, triangle_;
};

// Spectra with more than kMaxChannels channels, all by the exact solver.
class WideRunner {
  public:
    explicit WideRunner(const Batch& batch) : batch_(batch) {
        if (batch.table_step != 0 || batch.weight_step != 0) return;
        shared_.build(batch.settings, nullptr, batch.tables, batch.weights);
        sharing_ = true;
    }

    void run(int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            const Settings& settings = batch_.settings;
            const double* spectrum = batch_.spectrum(p);
            const bool own = !(sharing_ && shared_.serves(spectrum));
            if (own) own_.build(settings, spectrum, batch_.table(p), batch_.weight(p));
            batch_.flags[p] = (own ? own_ : shared_)
                                  .solve(settings, spectrum, batch_.abundances + p * settings.endmembers,
                                         batch_.residual + p, values_);
        }
    }

  private:
    const Batch& batch_;
    bool sharing_ = false;
    Narrowed shared_, own_;
    std::vector<double> values_;
};

}  // namespace lithostream::unmixing
