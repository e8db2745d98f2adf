// The rounds of SLIC: every pixel to the nearest of nine centres, every centre to the mean of its pixels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "superpixels/bands.h"
#include "superpixels/nearest.h"

namespace lithostream::superpixels {

constexpr int64_t kFixed = 16;  // as FIXED, WEIGHT_SHIFT and ITERATIONS of plan.py
constexpr int kWeightShift = 20;
constexpr int kIterations = 10;

struct Plan {
    int64_t y0, x0, height, width, rows, cols, stride, unit, weight, min_size;
};

// The box of the mask within the labels of the whole image.
struct Regions {
    int32_t* first;
    int64_t stride;

    int32_t* row(int64_t y) const { return first + y * stride; }
};

inline int64_t rounded_mean(int64_t sum, int64_t count, int64_t unit) {
    return (sum * unit + count / 2) / count;
}

template <int C>
struct Sums {
    int64_t count = 0, y = 0, x = 0;
    std::array<int64_t, C> colour{};

    void operator+=(const Sums& other) {
        count += other.count, y += other.y, x += other.x;
        for (int c = 0; c < C; ++c) colour[c] += other.colour[c];
    }
};

// The box of the mask, one plane per channel.
template <int C>
struct Picture {
    std::array<std::vector<uint8_t>, C> plane;
    const bool* mask;  // of the whole image; null where every pixel counts
    int64_t stride;    // width of the whole image

    Picture(const uint8_t* image, const bool* whole_mask, int64_t image_width, const Plan& plan, int threads)
        : mask(whole_mask), stride(image_width) {
        for (auto& one : plane) one.resize(plan.height * plan.width);
        for_each_band(plan.height, threads, [&](int, int64_t y) {
            const uint8_t* pixel = image + ((y + plan.y0) * stride + plan.x0) * C;
            std::array<uint8_t*, C> to;
            for (int c = 0; c < C; ++c) to[c] = plane[c].data() + y * plan.width;
            for (int64_t x = 0; x < plan.width; ++x)
                for (int c = 0; c < C; ++c) to[c][x] = pixel[x * C + c];
        });
    }
};

template <int C>
class Clusters {
  public:
    Clusters(const Picture<C>& picture, const Plan& plan, int threads)
        : picture_(picture),
          plan_(plan),
          threads_(threads),
          centres_(plan.rows * plan.cols),
          sums_(threads) {}

    // Write cluster + 1 to the regions, 0 outside the mask.
    void run(const Regions& regions) {
        collect([](int64_t) { return true; }, true);
        for (int64_t i = 0; i < kIterations; ++i)
            collect([&](int64_t y) { return y % plan_.stride == i % plan_.stride; }, false);
        for_each_band(plan_.rows, threads_, [&](int, int64_t band) { label(band, regions); });
    }

  private:
    struct Centre {
        bool alive = false;
        int64_t y = 0, x = 0;
        std::array<int16_t, C> colour{};
    };

    static constexpr uint8_t kOutside = kCandidates;

    int64_t top(int64_t row) const { return (row * plan_.height + plan_.rows - 1) / plan_.rows; }
    int64_t left(int64_t col) const { return (col * plan_.width + plan_.cols - 1) / plan_.cols; }
    int64_t position(int64_t fixed) const { return fixed * plan_.weight >> kWeightShift; }

    // Sum the chosen rows over the clusters (or the cells, as seeds) and move the centres to the means.
    template <typename Chosen>
    void collect(const Chosen& chosen, bool seeding) {
        for (auto& sums : sums_) sums.assign(centres_.size(), {});
        for_each_band(plan_.rows, threads_, [&](int thread, int64_t band) {
            visit(band, chosen, seeding, [&](int64_t y, int64_t x, int width, const uint8_t* choice) {
                add(sums_[thread], band, y, x, width, choice);
            });
        });
        for (size_t k = 0; k < centres_.size(); ++k) {
            Sums<C> all;
            for (const auto& sums : sums_) all += sums[k];
            if (all.count > 0) move(centres_[k], all);
        }
    }

    void move(Centre& centre, const Sums<C>& all) const {
        centre = {true, rounded_mean(all.y, all.count, kFixed), rounded_mean(all.x, all.count, kFixed), {}};
        for (int c = 0; c < C; ++c)
            centre.colour[c] = static_cast<int16_t>(rounded_mean(all.colour[c], all.count, plan_.unit));
    }

    void label(int64_t band, const Regions& regions) const {
        const auto all = [](int64_t) { return true; };
        visit(band, all, false, [&](int64_t y, int64_t x, int width, const uint8_t* choice) {
            int32_t* to = regions.row(y) + x;
            each_cell(band, x, width, [&](int64_t cell, int begin, int end) {
                const auto names = clusters_near(cell);
                for (int i = begin; i < end; ++i) to[i] = names[choice[i]] + 1;
            });
        });
    }

    // Cluster of each candidate of a cell; -1 for kOutside.
    std::array<int32_t, kCandidates + 1> clusters_near(int64_t cell) const {
        std::array<int32_t, kCandidates + 1> names;
        for (int j = 0; j < kCandidates; ++j)
            names[j] = static_cast<int32_t>(cell + (j / 3 - 1) * plan_.cols + j % 3 - 1);
        names[kOutside] = -1;
        return names;
    }

    // Call use(cell, begin, end) for the cells of a band under the columns x..x+width, counted from x.
    template <typename Use>
    void each_cell(int64_t band, int64_t x, int width, const Use& use) const {
        for (int64_t col = x * plan_.cols / plan_.width; col < plan_.cols && left(col) < x + width; ++col)
            use(band * plan_.cols + col, static_cast<int>(std::max(left(col) - x, int64_t{0})),
                static_cast<int>(std::min<int64_t>(left(col + 1) - x, width)));
    }

    // Call use(y, x, width, choice) with the choices of the chosen rows of a band, a chunk at a time.
    template <typename Chosen, typename Use>
    void visit(int64_t band, const Chosen& chosen, bool seeding, const Use& use) const {
        Candidates<C> candidates;
        Row<C> row;
        uint8_t choice[kChunk];
        std::fill_n(choice, kChunk, static_cast<uint8_t>(kOwn));
        for (int64_t x = 0; x < plan_.width; x += kChunk) {
            const int width = static_cast<int>(std::min<int64_t>(kChunk, plan_.width - x));
            if (!seeding) gather(band, x, width, candidates);
            for (int64_t y = top(band); y < top(band + 1); ++y) {
                if (!chosen(y)) continue;
                if (!seeding) {
                    read(band, y, x, width, row);
                    nearest(candidates, row, width, choice);
                }
                if (picture_.mask != nullptr) cut(y, x, width, choice, seeding);
                use(y, x, width, choice);
            }
        }
    }

    void cut(int64_t y, int64_t x, int width, uint8_t* choice, bool seeding) const {
        const bool* inside = picture_.mask + (y + plan_.y0) * picture_.stride + plan_.x0 + x;
        for (int i = 0; i < width; ++i) choice[i] = !inside[i] ? kOutside : seeding ? kOwn : choice[i];
    }

    void read(int64_t band, int64_t y, int64_t x, int width, Row<C>& row) const {
        row.y = static_cast<int16_t>(position(y * kFixed) - position(top(band) * kFixed));
        for (int c = 0; c < C; ++c) {
            const uint8_t* from = picture_.plane[c].data() + y * plan_.width + x;
            const auto unit = static_cast<int16_t>(plan_.unit);
            for (int i = 0; i < width; ++i) row.colour[c][i] = static_cast<int16_t>(from[i] * unit);
        }
    }

    void gather(int64_t band, int64_t x, int width, Candidates<C>& to) const {
        const int64_t origin = position(top(band) * kFixed);
        each_cell(band, x, width, [&](int64_t cell, int begin, int end) {
            for (int j = 0; j < kCandidates; ++j) {
                const Centre& centre = candidate(band, cell - band * plan_.cols, j);
                const int64_t across = position(centre.x);
                for (int i = begin; i < end; ++i)
                    to.across[j][i] = static_cast<int16_t>(std::abs(position((x + i) * kFixed) - across));
                std::fill(to.y[j] + begin, to.y[j] + end, static_cast<int16_t>(position(centre.y) - origin));
                for (int c = 0; c < C; ++c)
                    std::fill(to.colour[j][c] + begin, to.colour[j][c] + end, centre.colour[c]);
            }
        });
    }

    const Centre& candidate(int64_t row, int64_t col, int j) const {
        const int64_t cy = row + j / 3 - 1, cx = col + j % 3 - 1;
        const bool exists = 0 <= cy && cy < plan_.rows && 0 <= cx && cx < plan_.cols;
        const Centre& own = centres_[row * plan_.cols + col];
        return exists && centres_[cy * plan_.cols + cx].alive ? centres_[cy * plan_.cols + cx] : own;
    }

    // Add one row of a chunk to the sums of its clusters. The up to 256 pixels of a cell are summed over
    // their candidates without a branch: up to four colours of 16 bits in one word, x and count in another.
    void add(std::vector<Sums<C>>& sums, int64_t band, int64_t y, int64_t x, int width,
             const uint8_t* choice) const {
        std::array<const uint8_t*, C> from;
        for (int c = 0; c < C; ++c) from[c] = picture_.plane[c].data() + y * plan_.width + x;
        each_cell(band, x, width, [&](int64_t cell, int begin, int end) {
            std::array<uint64_t, kCandidates + 1> colours{}, places{};
            for (int i = begin; i < end; ++i) {
                uint64_t colour = 0;
                for (int c = 0; c < C; ++c) colour |= uint64_t{from[c][i]} << 16 * c;
                colours[choice[i]] += colour;
                places[choice[i]] += uint64_t{1} << 32 | static_cast<uint32_t>(i);
            }
            const auto names = clusters_near(cell);
            for (int j = 0; j < kCandidates; ++j) {
                const auto count = static_cast<int64_t>(places[j] >> 32);
                if (count == 0) continue;
                Sums<C>& to = sums[names[j]];
                to.count += count, to.y += count * y, to.x += count * x + (places[j] & 0xffffffff);
                for (int c = 0; c < C; ++c) to.colour[c] += colours[j] >> 16 * c & 0xffff;
            }
        });
    }

    const Picture<C>& picture_;
    const Plan& plan_;
    int threads_;
    std::vector<Centre> centres_;
    std::vector<std::vector<Sums<C>>> sums_;  // per thread
};

}  // namespace lithostream::superpixels
