// What one thread learns of a band of rows: the segments it meets, in the order in which it meets them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "segments/sums.h"

namespace lithostream::segments {

struct Extent {
    int64_t count = 0, sum_y = 0, sum_x = 0;
    int32_t y0 = std::numeric_limits<int32_t>::max(), x0 = y0, y1 = 0, x1 = 0;

    // Pixels start..stop of row y.
    void add(int64_t y, int64_t start, int64_t stop) {
        const int64_t length = stop - start;
        merge({length, length * y, length * (start + stop - 1) / 2, static_cast<int32_t>(y),
               static_cast<int32_t>(start), static_cast<int32_t>(y + 1), static_cast<int32_t>(stop)});
    }

    void merge(const Extent& other) {
        count += other.count, sum_y += other.sum_y, sum_x += other.sum_x;
        y0 = std::min(y0, other.y0), x0 = std::min(x0, other.x0);
        y1 = std::max(y1, other.y1), x1 = std::max(x1, other.x1);
    }
};

// Adds `length` values of one channel, `stride` apart, and leaves out those that are not finite.
template <typename T>
void add_finite(const T* values, size_t stride, size_t length, Sums& sums) {
    for (size_t i = 0; i < length; ++i, values += stride)
        if (std::isfinite(static_cast<double>(*values))) sums.add(*values);
}

// Adds a run of pixels to the sums of N neighbouring channels. Sums of floats cannot overflow a double, so a
// sum that is not finite tells of a value that is not.
template <int N, typename T>
void add_run(const T* values, size_t stride, size_t length, Sums* sums) {
    double shift[N], sum[N], squares[N];
    for (int c = 0; c < N; ++c) {
        shift[c] = sums[c].count ? sums[c].shift : static_cast<double>(values[c]);
        sum[c] = sums[c].sum, squares[c] = sums[c].squares;
    }
    const T* value = values;
    for (size_t i = 0; i < length; ++i, value += stride)
        for (int c = 0; c < N; ++c) {
            const double apart = value[c] - shift[c];
            sum[c] += apart;
            squares[c] += apart * apart;
        }
    for (int c = 0; c < N; ++c)
        if (std::isfinite(sum[c]))
            sums[c] = {sums[c].count + static_cast<int64_t>(length), shift[c], sum[c], squares[c]};
        else
            add_finite(values + c, stride, length, sums[c]);
}

// Adds a run to the sums of all channels, eight at a time.
template <typename T>
void add_run(const T* values, size_t width, size_t length, Sums* sums) {
    size_t c = 0;
    for (; c + 8 <= width; c += 8) add_run<8>(values + c, width, length, sums + c);
    switch (width - c) {
        case 1:
            return add_run<1>(values + c, width, length, sums + c);
        case 2:
            return add_run<2>(values + c, width, length, sums + c);
        case 3:
            return add_run<3>(values + c, width, length, sums + c);
        case 4:
            return add_run<4>(values + c, width, length, sums + c);
        case 5:
            return add_run<5>(values + c, width, length, sums + c);
        case 6:
            return add_run<6>(values + c, width, length, sums + c);
        case 7:
            return add_run<7>(values + c, width, length, sums + c);
    }
}

// Results of all segments so far: bands are merged into it from top to bottom.
struct Totals {
    Totals(size_t segments, size_t width) : extents(segments), sums(segments * width, Sums{0, 0, 0, 0}) {}

    std::vector<Extent> extents;
    std::vector<Sums> sums;
};

class Band {
  public:
    // A band of `pixels` has no more segments than that; sums that no segment needs are never touched.
    Band(size_t segments, size_t width, size_t pixels)
        : width_(width),
          slots_(segments, -1),
          owners_(new int32_t[std::min(segments, pixels)]),
          extents_(new Extent[std::min(segments, pixels)]),
          sums_(new Sums[std::min(segments, pixels) * width]) {}

    // Adds row y, run by run: neighbours mostly have the same label.
    template <typename T>
    void add_row(int64_t y, const int32_t* labels, const T* values, int64_t columns) {
        for (int64_t start = 0, stop; start < columns; start = stop) {
            const int32_t label = labels[start];
            for (stop = start + 1; stop < columns && labels[stop] == label;) ++stop;
            if (label == 0) continue;
            const size_t slot = find(label - 1);
            extents_[slot].add(y, start, stop);
            add_run(values + start * width_, width_, stop - start, &sums_[slot * width_]);
        }
    }

    // Moves what was gathered into the totals.
    void flush(Totals& totals) {
        for (size_t slot = 0; slot < used_; ++slot) {
            const size_t segment = owners_[slot];
            totals.extents[segment].merge(extents_[slot]);
            for (size_t c = 0; c < width_; ++c)
                totals.sums[segment * width_ + c].merge(sums_[slot * width_ + c]);
            slots_[segment] = -1;
        }
        used_ = 0;
    }

  private:
    size_t find(int32_t segment) {
        if (slots_[segment] < 0) {
            slots_[segment] = static_cast<int32_t>(used_);
            owners_[used_] = segment;
            extents_[used_] = Extent();
            std::fill_n(&sums_[used_ * width_], width_, Sums{0, 0, 0, 0});
            ++used_;
        }
        return slots_[segment];
    }

    size_t width_, used_ = 0;
    std::vector<int32_t> slots_;
    std::unique_ptr<int32_t[]> owners_;
    std::unique_ptr<Extent[]> extents_;
    std::unique_ptr<Sums[]> sums_;
};

}  // namespace lithostream::segments
