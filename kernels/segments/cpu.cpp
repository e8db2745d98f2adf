// Count, mean, variance, box and centroid of every label in one pass.
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "native.h"

namespace nb = nanobind;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Running mean and sum of squared deviations of one channel of one segment (Welford 1962).
struct Moments {
    int64_t count = 0;
    double mean = 0, squares = 0;

    void add(double value) {
        const double deviation = value - mean;
        mean += deviation / ++count;
        squares += deviation * (value - mean);
    }
};

struct Extent {
    int64_t count = 0, sum_y = 0, sum_x = 0;
    int32_t y0 = std::numeric_limits<int32_t>::max(), x0 = y0, y1 = 0, x1 = 0;

    void add(int32_t y, int32_t x) {
        ++count, sum_y += y, sum_x += x;
        y0 = std::min(y0, y), x0 = std::min(x0, x);
        y1 = std::max(y1, y + 1), x1 = std::max(x1, x + 1);
    }
};

template <typename T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

void segment_stats(Array<const int32_t, 2> labels, Array<const float, 3> channels, Array<int64_t, 1> count,
                   Array<double, 2> mean, Array<double, 2> variance, Array<int32_t, 2> box,
                   Array<double, 2> centroid) {
    const size_t segments = count.shape(0), width = channels.shape(2);
    std::vector<Extent> extents(segments);
    std::vector<Moments> moments(segments * width);
    const int32_t* label = labels.data();
    const float* values = channels.data();
    for (size_t y = 0; y < labels.shape(0); ++y)
        for (size_t x = 0; x < labels.shape(1); ++x, ++label, values += width) {
            if (*label == 0) continue;
            extents[*label - 1].add(static_cast<int32_t>(y), static_cast<int32_t>(x));
            Moments* row = moments.data() + (*label - 1) * width;
            for (size_t c = 0; c < width; ++c)
                if (std::isfinite(values[c])) row[c].add(values[c]);
        }
    for (size_t k = 0; k < segments; ++k) {
        const Extent& e = extents[k];
        const int32_t corners[] = {e.count ? e.y0 : 0, e.count ? e.x0 : 0, e.y1, e.x1};
        std::copy_n(corners, 4, box.data() + 4 * k);
        count.data()[k] = e.count;
        centroid.data()[2 * k] = e.count ? static_cast<double>(e.sum_y) / e.count : kNaN;
        centroid.data()[2 * k + 1] = e.count ? static_cast<double>(e.sum_x) / e.count : kNaN;
    }
    for (size_t i = 0; i < moments.size(); ++i) {
        mean.data()[i] = moments[i].count ? moments[i].mean : kNaN;
        variance.data()[i] = moments[i].count ? moments[i].squares / moments[i].count : kNaN;
    }
}

}  // namespace

void register_segment_stats(nb::module_& m) {
    m.def("segment_stats", &segment_stats, nb::arg("labels").noconvert(), nb::arg("channels").noconvert(),
          nb::arg("count").noconvert(), nb::arg("mean").noconvert(), nb::arg("variance").noconvert(),
          nb::arg("box").noconvert(), nb::arg("centroid").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
