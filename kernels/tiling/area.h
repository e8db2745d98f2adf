// Exact area resampling of one cell, in integers that floating point numbers hold without rounding.
//
// On an axis of n source and m output pixels, both divided by what they have in common, take 1 / (n * m) of
// the axis as the unit: a source pixel is m units long, an output pixel n, and every overlap a whole number
// of units.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

// One copy for processors with AVX2 and one for all, each with what it calls inside; both give the same
// bytes.
#if defined(__x86_64__) && !defined(__AVX2__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__)
#define TILING_CLONES __attribute__((flatten, target_clones("arch=x86-64-v3", "default")))
#else
#define TILING_CLONES
#endif

namespace lithostream::tiling {

// How many units long an output pixel is.
inline int64_t units(int64_t source, int64_t output) { return source / std::gcd(source, output); }

// How the output pixels of an axis add up its source pixels, by `Weight`s of `units` in all.
template <class Weight>
struct Axis {
    int64_t taps = 1;             // source pixels that an output pixel reads, some perhaps with weight 0
    std::vector<int64_t> first;   // [output] the first of them; first + taps is never beyond the axis
    std::vector<Weight> weights;  // [output, taps]

    Axis(int64_t source, int64_t output) : first(output) {
        const int64_t n = units(source, output), m = units(output, source);
        const auto begin = [&](int64_t k) { return k * n / m; };
        const auto end = [&](int64_t k) { return ((k + 1) * n - 1) / m + 1; };
        for (int64_t k = 0; k < output; ++k) taps = std::max(taps, end(k) - begin(k));
        weights.resize(output * taps);
        for (int64_t k = 0; k < output; ++k) {
            first[k] = std::min(begin(k), source - taps);
            for (int64_t x = begin(k); x < end(k); ++x)
                weights[k * taps + x - first[k]] =
                    static_cast<Weight>(std::min((k + 1) * n, (x + 1) * m) - std::max(k * n, x * m));
        }
    }
    const Weight* of(int64_t k) const { return weights.data() + k * taps; }
    // Whether output pixel k adds up what the one before it does.
    bool repeats(int64_t k) const {
        return k && first[k] == first[k - 1] && std::equal(of(k), of(k) + taps, of(k - 1));
    }
};

// A cell of the image: rows of packed pixels.
struct Cell {
    const uint8_t* pixels;
    int64_t row_bytes, height, width;
};

// floor((n + 1/2) / area) of whole numbers n <= 255.5 * area. The exact quotient lies 1 / (2 * area) or more
// from any integer, the computed one within 2^8 * 2^-23 (float) or 2^8 * 2^-52 (double) of it, and that is
// less where area is below 2^14 or 2^43.
template <class Quotient, class Real>
void divide(const Real* n, int64_t count, int64_t area, uint8_t* quotients) {
    const Quotient scale = Quotient(1) / static_cast<Quotient>(area);
    for (int64_t i = 0; i < count; ++i)
        quotients[i] = static_cast<uint8_t>(static_cast<int32_t>((n[i] + Quotient(0.5)) * scale));
}

// Resamples cells to squares of `size` pixels. `Sum` holds a column of the cell, 255 * height, and `Real` a
// footprint and half an area more, 255.5 * area, without rounding.
template <class Sum, class Real>
class Resampler {
  public:
    explicit Resampler(int64_t size) : size_(size), totals_(3 * size + 1) {}

    TILING_CLONES void operator()(const Cell& cell, const Axis<Sum>& rows, const Axis<Real>& columns,
                                  uint8_t* tile) {
        const int64_t area = units(cell.height, size_) * units(cell.width, size_), bytes = 3 * size_;
        sums_.resize(3 * cell.width);
        line_.resize(3 * cell.width + 1);
        for (int64_t k = 0; k < size_; ++k, tile += bytes) {
            if (rows.repeats(k)) {
                std::memcpy(tile, tile - bytes, bytes);
                continue;
            }
            add_rows(cell, rows, k);
            std::copy(sums_.begin(), sums_.end(), line_.begin());
            add_columns(columns, static_cast<Real>(area / 2));
            if (area < 1 << 14)
                divide<float>(totals_.data(), bytes, area, tile);
            else
                divide<double>(totals_.data(), bytes, area, tile);
        }
    }

  private:
    // Adds up the rows under output row k, four at a time.
    void add_rows(const Cell& cell, const Axis<Sum>& rows, int64_t k) {
        const uint8_t* from = cell.pixels + rows.first[k] * cell.row_bytes;
        const Sum* weights = rows.of(k);
        int64_t t = std::min<int64_t>(rows.taps, 4);
        add<false>(t, from, cell.row_bytes, weights);
        for (int64_t some; t < rows.taps; t += some) {
            some = std::min<int64_t>(rows.taps - t, 4);
            add<true>(some, from + t * cell.row_bytes, cell.row_bytes, weights + t);
        }
    }

    template <bool kMore>
    void add(int64_t rows, const uint8_t* from, int64_t row_bytes, const Sum* weights) {
        const uint8_t *a = from, *b = a + row_bytes, *c = b + row_bytes, *d = c + row_bytes;
        const Sum p = weights[0], q = rows > 1 ? weights[1] : 0, r = rows > 2 ? weights[2] : 0,
                  s = rows > 3 ? weights[3] : 0;
        Sum* sums = sums_.data();
        const int64_t count = static_cast<int64_t>(sums_.size());
        const auto each = [&](const auto& sum) {
            for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<Sum>((kMore ? sums[i] : 0) + sum(i));
        };
        if (rows == 1) return each([=](int64_t i) { return p * a[i]; });
        if (rows == 2) return each([=](int64_t i) { return p * a[i] + q * b[i]; });
        if (rows == 3) return each([=](int64_t i) { return p * a[i] + q * b[i] + r * c[i]; });
        each([=](int64_t i) { return p * a[i] + q * b[i] + r * c[i] + s * d[i]; });
    }

    void add_columns(const Axis<Real>& columns, Real half) {
        switch (columns.taps) {
            case 1:
                return add_taps<1>(columns, half);
            case 2:
                return add_taps<2>(columns, half);
            case 3:
                return add_taps<3>(columns, half);
            case 4:
                return add_taps<4>(columns, half);
            default:
                return add_taps<0>(columns, half);
        }
    }

    // Adds up the line under each output pixel, `kTaps` pixels or, if 0, as many as the axis says. A fourth
    // lane beside the channels falls to the next pixel.
    template <int kTaps>
    void add_taps(const Axis<Real>& columns, Real half) {
        using Lanes __attribute__((vector_size(4 * sizeof(Real)))) = Real;
        const int64_t taps = kTaps ? kTaps : columns.taps, size = size_;
        const int64_t* first = columns.first.data();
        const Real *line = line_.data(), *weights = columns.weights.data();
        Real* totals = totals_.data();
        for (int64_t k = 0; k < size; ++k, weights += taps, totals += 3) {
            const Real* from = line + 3 * first[k];
            Lanes total = half + Lanes{}, pixel;
            for (int64_t t = 0; t < taps; ++t) {
                std::memcpy(&pixel, from + 3 * t, sizeof pixel);
                total += weights[t] * pixel;
            }
            std::memcpy(totals, &total, sizeof total);
        }
    }

    int64_t size_;
    std::vector<Sum> sums_;
    std::vector<Real> line_, totals_;
};

}  // namespace lithostream::tiling
