// SLIC superpixels in integer arithmetic; the algorithm in plain words is reference.py.
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "native.h"
#include "superpixels/forest.h"

namespace nb = nanobind;

namespace {

using lithostream::superpixels::Forest;

constexpr int64_t kFixed = 16;  // as FIXED, COLOUR_SHIFT and ITERATIONS of plan.py
constexpr int kColourShift = 24;
constexpr int kIterations = 10;

struct Plan {
    int64_t y0, x0, height, width, rows, cols, weight, min_size;
};

int64_t fixed_mean(int64_t sum, int64_t count) { return (sum * kFixed + count / 2) / count; }

template <int C>
struct Sums {
    int64_t count = 0, y = 0, x = 0;
    std::array<int64_t, C> colour{};

    void add(int64_t py, int64_t px, const uint8_t* pixel) {
        ++count, y += py, x += px;
        for (int c = 0; c < C; ++c) colour[c] += pixel[c];
    }
};

// Regions hold 1.. inside the mask and 0 outside, over the box of the mask.
template <int C>
class Slic {
  public:
    Slic(const uint8_t* image, const bool* mask, int64_t stride, const Plan& plan)
        : image_(image), mask_(mask), stride_(stride), plan_(plan), regions_(plan.height * plan.width) {}

    const std::vector<int32_t>& run() {
        seed();
        for (int i = 0; i < kIterations && assign(); ++i) move_centres();
        const int32_t count = split_pieces();
        merge_small(count);
        return regions_;
    }

  private:
    struct Centre {
        bool alive;
        int64_t y, x;
        std::array<int32_t, C> colour;
    };

    struct Choice {  // ordered by colour gap, then by label
        int64_t gap = std::numeric_limits<int64_t>::max();
        int32_t label = 0;
    };

    const uint8_t* pixel(int64_t y, int64_t x) const {
        return image_ + ((y + plan_.y0) * stride_ + x + plan_.x0) * C;
    }

    bool inside(int64_t y, int64_t x) const {
        return mask_ == nullptr || mask_[(y + plan_.y0) * stride_ + x + plan_.x0];
    }

    int32_t& region(int64_t y, int64_t x) { return regions_[y * plan_.width + x]; }

    void seed() {
        for (int64_t y = 0; y < plan_.height; ++y)
            for (int64_t x = 0; x < plan_.width; ++x) {
                const int64_t cell =
                    y * plan_.rows / plan_.height * plan_.cols + x * plan_.cols / plan_.width;
                region(y, x) = inside(y, x) ? static_cast<int32_t>(cell + 1) : 0;
            }
        move_centres();
    }

    std::vector<Sums<C>> sums(int64_t count) {
        std::vector<Sums<C>> all(count);
        for (int64_t y = 0; y < plan_.height; ++y)
            for (int64_t x = 0; x < plan_.width; ++x)
                if (const int32_t label = region(y, x)) all[label - 1].add(y, x, pixel(y, x));
        return all;
    }

    void move_centres() {
        const auto all = sums(plan_.rows * plan_.cols);
        centres_.resize(all.size());
        for (size_t k = 0; k < all.size(); ++k) {
            const int64_t count = std::max<int64_t>(all[k].count, 1);
            centres_[k] = {all[k].count > 0, fixed_mean(all[k].y, count), fixed_mean(all[k].x, count), {}};
            for (int c = 0; c < C; ++c)
                centres_[k].colour[c] = static_cast<int32_t>(fixed_mean(all[k].colour[c], count));
        }
    }

    // Give every pixel its nearest centre; true where one changed.
    bool assign() {
        bool changed = false;
        std::vector<int64_t> best(plan_.width);
        std::vector<int32_t> nearest(plan_.width);
        for (int64_t y = 0; y < plan_.height; ++y) {
            std::fill(best.begin(), best.end(), std::numeric_limits<int64_t>::max());
            const int64_t grid_y = y * plan_.rows / plan_.height;
            for (int64_t grid_x = 0; grid_x < plan_.cols; ++grid_x)
                for (int64_t cy = std::max<int64_t>(grid_y - 1, 0); cy < std::min(grid_y + 2, plan_.rows);
                     ++cy)
                    for (int64_t cx = std::max<int64_t>(grid_x - 1, 0); cx < std::min(grid_x + 2, plan_.cols);
                         ++cx)
                        compare(y, grid_x, cy * plan_.cols + cx, best, nearest);
            for (int64_t x = 0; x < plan_.width; ++x)
                if (inside(y, x) && region(y, x) != nearest[x]) {
                    region(y, x) = nearest[x];
                    changed = true;
                }
        }
        return changed;
    }

    // Offer one centre to the pixels of row y in one column of the grid.
    void compare(int64_t y, int64_t grid_x, int64_t k, std::vector<int64_t>& best,
                 std::vector<int32_t>& nearest) const {
        const Centre& centre = centres_[k];
        if (!centre.alive) return;
        const int64_t begin = (grid_x * plan_.width + plan_.cols - 1) / plan_.cols;
        const int64_t end = ((grid_x + 1) * plan_.width + plan_.cols - 1) / plan_.cols;
        const int64_t dy = y * kFixed - centre.y;
        for (int64_t x = begin; x < end; ++x) {
            const int64_t dx = x * kFixed - centre.x;
            int32_t colour = 0;
            for (int c = 0; c < C; ++c) {
                const int32_t gap = pixel(y, x)[c] * static_cast<int32_t>(kFixed) - centre.colour[c];
                colour += gap * gap;
            }
            const int64_t distance =
                (static_cast<int64_t>(colour) << kColourShift) + plan_.weight * (dy * dy + dx * dx);
            if (distance < best[x]) {
                best[x] = distance;
                nearest[x] = static_cast<int32_t>(k + 1);
            }
        }
    }

    // Relabel by 4-connected piece, numbered by first pixel in row order; returns how many.
    int32_t split_pieces() {
        Forest forest;
        std::vector<int32_t> piece(regions_.size());
        for (int64_t y = 0, p = 0; y < plan_.height; ++y)
            for (int64_t x = 0; x < plan_.width; ++x, ++p) {
                if (regions_[p] == 0) continue;
                const bool left = x > 0 && regions_[p - 1] == regions_[p];
                const bool above = y > 0 && regions_[p - plan_.width] == regions_[p];
                piece[p] = left ? piece[p - 1] : above ? piece[p - plan_.width] : forest.add();
                if (left && above) forest.join(piece[p], piece[p - plan_.width]);
            }
        const auto [number, count] = forest.compact();
        for (size_t p = 0; p < piece.size(); ++p)
            if (regions_[p] != 0) regions_[p] = number[piece[p]] + 1;
        return count;
    }

    // Each small region chooses a neighbour, all choices are joined, until none is left that can choose.
    // Choices of one round do not see each other, so their order does not matter.
    void merge_small(int32_t count) {
        for (;;) {
            const auto choices = choose_neighbours(count);
            Forest forest(count);
            for (int32_t k = 0; k < count; ++k)
                if (choices[k].label != 0) forest.join(k, choices[k].label - 1);
            const auto [number, kept] = forest.compact();
            if (kept == count) return;
            for (int32_t& label : regions_)
                if (label != 0) label = number[label - 1] + 1;
            count = kept;
        }
    }

    std::vector<Choice> choose_neighbours(int32_t count) {
        const auto all = sums(count);
        std::vector<Choice> choices(count);
        const auto offer = [&](int32_t to, int32_t label) {
            if (to == label || to == 0 || label == 0 || all[to - 1].count >= plan_.min_size) return;
            Choice& choice = choices[to - 1];
            const Choice offered{colour_gap(all[to - 1], all[label - 1]), label};
            if (std::tie(offered.gap, offered.label) < std::tie(choice.gap, choice.label)) choice = offered;
        };
        for (int64_t y = 0; y < plan_.height; ++y)
            for (int64_t x = 0; x < plan_.width; ++x) {
                const int32_t label = region(y, x);
                if (x > 0) offer(label, region(y, x - 1)), offer(region(y, x - 1), label);
                if (y > 0) offer(label, region(y - 1, x)), offer(region(y - 1, x), label);
            }
        return choices;
    }

    static int64_t colour_gap(const Sums<C>& a, const Sums<C>& b) {
        int64_t total = 0;
        for (int c = 0; c < C; ++c) {
            const int64_t gap = fixed_mean(a.colour[c], a.count) - fixed_mean(b.colour[c], b.count);
            total += gap * gap;
        }
        return total;
    }

    const uint8_t* image_;
    const bool* mask_;
    int64_t stride_;
    Plan plan_;
    std::vector<int32_t> regions_;
    std::vector<Centre> centres_;
};

using Image = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <int C>
void label(const Image& image, const bool* mask, const Plan& plan, Labels& labels) {
    const int64_t stride = static_cast<int64_t>(image.shape(1));
    Slic<C> slic(image.data(), mask, stride, plan);
    const auto& regions = slic.run();
    std::fill_n(labels.data(), labels.size(), 0);
    for (int64_t y = 0; y < plan.height; ++y)
        std::copy_n(regions.data() + y * plan.width, plan.width,
                    labels.data() + (y + plan.y0) * stride + plan.x0);
}

void slic(Image image, Mask mask, std::tuple<int64_t, int64_t, int64_t, int64_t> box,
          std::pair<int64_t, int64_t> cells, int64_t weight, int64_t min_size, Labels labels) {
    const auto [y0, x0, y1, x1] = box;
    const Plan plan{y0, x0, y1 - y0, x1 - x0, cells.first, cells.second, weight, min_size};
    const bool* inside = mask.is_valid() ? mask.data() : nullptr;
    switch (image.shape(2)) {
        case 1:
            return label<1>(image, inside, plan, labels);
        case 2:
            return label<2>(image, inside, plan, labels);
        case 3:
            return label<3>(image, inside, plan, labels);
        default:
            return label<4>(image, inside, plan, labels);
    }
}

}  // namespace

void register_slic(nb::module_& m) {
    m.def("slic", &slic, nb::arg("image").noconvert(), nb::arg("mask").noconvert().none(), nb::arg("box"),
          nb::arg("cells"), nb::arg("weight"), nb::arg("min_size"), nb::arg("labels").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
