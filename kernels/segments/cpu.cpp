// Count, mean, variance, box and centroid of every label in one pass over bands of rows.
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "native.h"
#include "segments/band.h"
#include "threads.h"

namespace nb = nanobind;

namespace {

using namespace lithostream::segments;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Rows of a band. It decides which sums are rounded together: results change with it, but not with the
// threads.
constexpr int64_t kBandRows = 32;

// Fewer pixels are done before a further thread has started.
constexpr int64_t kThreadPixels = 1 << 16;

template <typename T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Lets threads do the last step of their bands in the order of the bands, in which they are begun too.
class Turns {
  public:
    template <typename Step>
    void take(int64_t band, Step&& step) {
        std::unique_lock lock(mutex_);
        turned_.wait(lock, [&] { return next_ == band; });
        step();
        ++next_;
        turned_.notify_all();
    }

  private:
    std::mutex mutex_;
    std::condition_variable turned_;
    int64_t next_ = 0;
};

int useful_threads(int64_t pixels) {
    const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    return static_cast<int>(std::min(cores, 1 + pixels / kThreadPixels));
}

template <typename T>
Totals gather(const Array<const int32_t, 2>& labels, const Array<const T, 3>& channels, size_t segments) {
    const int64_t rows = labels.shape(0), columns = labels.shape(1);
    const size_t width = channels.shape(2);
    const int64_t bands = (rows + kBandRows - 1) / kBandRows;
    Totals totals(segments, width);
    std::vector<Band> own;  // all memory is taken here, so that no thread fails while others wait for it
    for (int64_t left = useful_threads(rows * columns); left > 0; --left)
        own.emplace_back(segments, width, kBandRows * columns);
    Turns turns;
    lithostream::share(bands, static_cast<int>(own.size()), [&](int thread, int64_t band) {
        const int64_t end = std::min(rows, (band + 1) * kBandRows);
        for (int64_t y = band * kBandRows; y < end; ++y)
            own[thread].add_row(y, labels.data() + y * columns, channels.data() + y * columns * width,
                                columns);
        turns.take(band, [&] { own[thread].flush(totals); });
    });
    return totals;
}

// Labels are proven to lie in 0..K, where K is the length of the outputs.
template <typename T>
void segment_stats(Array<const int32_t, 2> labels, Array<const T, 3> channels, Array<int64_t, 1> count,
                   Array<double, 2> mean, Array<double, 2> variance, Array<int32_t, 2> box,
                   Array<double, 2> centroid) {
    const Totals totals = gather(labels, channels, count.shape(0));
    for (size_t k = 0; k < totals.extents.size(); ++k) {
        const Extent& e = totals.extents[k];
        const int32_t corners[] = {e.count ? e.y0 : 0, e.count ? e.x0 : 0, e.y1, e.x1};
        std::copy_n(corners, 4, box.data() + 4 * k);
        count.data()[k] = e.count;
        centroid.data()[2 * k] = e.count ? static_cast<double>(e.sum_y) / e.count : kNaN;
        centroid.data()[2 * k + 1] = e.count ? static_cast<double>(e.sum_x) / e.count : kNaN;
    }
    for (size_t i = 0; i < totals.sums.size(); ++i) {
        const Sums& sums = totals.sums[i];
        mean.data()[i] = sums.count ? sums.mean() : kNaN;
        variance.data()[i] = sums.count ? sums.variance() : kNaN;
    }
}

// Lowest and highest label, 0 among them.
std::pair<int32_t, int32_t> label_range(Array<const int32_t, 2> labels) {
    const int64_t size = labels.size(), parts = (size + kThreadPixels - 1) / kThreadPixels;
    std::vector<std::pair<int32_t, int32_t>> ranges(parts);
    lithostream::share(parts, useful_threads(size), [&](int, int64_t part) {
        int32_t lowest = 0, highest = 0;
        const int64_t end = std::min(size, (part + 1) * kThreadPixels);
        for (int64_t i = part * kThreadPixels; i < end; ++i) {
            lowest = std::min(lowest, labels.data()[i]);
            highest = std::max(highest, labels.data()[i]);
        }
        ranges[part] = {lowest, highest};
    });
    std::pair<int32_t, int32_t> all{0, 0};
    for (const auto& [lowest, highest] : ranges)
        all = {std::min(all.first, lowest), std::max(all.second, highest)};
    return all;
}

template <typename T>
void define(nb::module_& m) {
    m.def("segment_stats", &segment_stats<T>, nb::arg("labels").noconvert(), nb::arg("channels").noconvert(),
          nb::arg("count").noconvert(), nb::arg("mean").noconvert(), nb::arg("variance").noconvert(),
          nb::arg("box").noconvert(), nb::arg("centroid").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

void register_segment_stats(nb::module_& m) {
    define<float>(m);
    define<uint8_t>(m);
    m.def("label_range", &label_range, nb::arg("labels").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
