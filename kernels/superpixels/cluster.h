// The rounds of SLIC: every pixel to the nearest of nine centres, every centre to the mean of its pixels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "superpixels/nearest.h"
#include "superpixels/tally.h"
#include "threads.h"

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

// The box of the mask, one plane per channel.
template <int C>
struct Picture {
    std::array<std::vector<uint8_t>, C> plane;
    const bool* mask;  // of the whole image; null where every pixel counts
    int64_t stride;    // width of the whole image

    Picture(const uint8_t* image, const bool* whole_mask, int64_t image_width, const Plan& plan, int threads)
        : mask(whole_mask), stride(image_width) {
        for (auto& one : plane) one.resize(plan.height * plan.width);
        share(plan.height, threads, [&](int, int64_t y) {
            const uint8_t* pixel = image + ((y + plan.y0) * stride + plan.x0) * C;
            std::array<uint8_t*, C> to;
            for (int c = 0; c < C; ++c) to[c] = plane[c].data() + y * plan.width;
            for (int64_t x = 0; x < plan.width; ++x)
                for (int c = 0; c < C; ++c) to[c][x] = pixel[x * C + c];
        });
    }
};

// Up to four colours of a pixel, 16 bits each, for `width` pixels from `at` in the planes.
template <int C>
void pack(const Picture<C>& picture, int64_t at, int width, uint64_t* colours) {
    for (int i = 0; i < width; ++i) {
        uint64_t colour = 0;
        for (int c = 0; c < C; ++c) colour |= uint64_t{picture.plane[c][at + i]} << 16 * c;
        colours[i] = colour;
    }
}

template <int C>
class Clusters {
  public:
    Clusters(const Picture<C>& picture, const Plan& plan, int threads)
        : picture_(picture),
          plan_(plan),
          threads_(threads),
          centres_(plan.rows * plan.cols),
          sums_(threads),
          places_(plan.width + kLanes) {
        for (int64_t x = 0; x < plan.width; ++x) places_[x] = static_cast<int16_t>(position(x * kFixed));
    }

    // Write cluster + 1 to the regions, 0 outside the mask.
    void run(const Regions& regions) {
        collect(0, plan_.stride, true);
        if (picture_.mask != nullptr) collect(0, 1, true);  // seeds of cells with no mask in those rows
        for (int64_t i = 0; i < kIterations; ++i) collect(i % plan_.stride, plan_.stride, false);
        share(plan_.rows, threads_, [&](int, int64_t band) { label(band, regions); });
    }

  private:
    struct Centre {
        bool alive = false;
        int64_t y = 0, x = 0;
        std::array<int16_t, C> colour{};
    };

    // Some columns of a band of cells.
    struct Chunk {
        int64_t band, x;
        int width;
        std::vector<Span> spans;
    };

    int64_t top(int64_t row) const { return (row * plan_.height + plan_.rows - 1) / plan_.rows; }
    int64_t left(int64_t col) const { return (col * plan_.width + plan_.cols - 1) / plan_.cols; }
    int64_t position(int64_t fixed) const { return fixed * plan_.weight >> kWeightShift; }

    // Sum every `stride`-th row from `first` over the clusters (or the cells, as seeds) and move the centres
    // to the means.
    void collect(int64_t first, int64_t stride, bool seeding) {
        for (auto& sums : sums_) sums.assign(centres_.size(), {});
        share(plan_.rows, threads_, [&](int thread, int64_t band) {
            const int64_t y0 = top(band) + ((first - top(band)) % stride + stride) % stride;
            Tally<C> tally;
            Candidates<C> candidates;
            uint8_t choice[kChunk];
            std::fill_n(choice, kChunk, static_cast<uint8_t>(kOwn));
            each_chunk(band, [&](const Chunk& chunk) {
                if (!seeding) gather(chunk, candidates);
                for (int64_t y = y0; y < top(band + 1); y += Tally<C>::kRows * stride) {
                    tally.reset(chunk.spans.size());
                    for (int64_t i = y; i < top(band + 1) && !tally.full(); i += stride) {
                        const Row<C> row = row_at(chunk, i);
                        if (!seeding) nearest(candidates, row, chunk.width, choice);
                        if (picture_.mask != nullptr) cut(chunk, i, choice, seeding);
                        tally.add(row, chunk.spans, choice);
                    }
                    pour(tally, chunk, y, stride, sums_[thread]);
                }
            });
        });
        for (size_t k = 0; k < centres_.size(); ++k) {
            Sums<C> all;
            for (const auto& sums : sums_) all += sums[k];
            if (all.count > 0 && !(seeding && centres_[k].alive)) move(centres_[k], all);
        }
    }

    void pour(const Tally<C>& tally, const Chunk& chunk, int64_t y, int64_t stride,
              std::vector<Sums<C>>& to) const {
        for (size_t s = 0; s < chunk.spans.size(); ++s) {
            const auto names = clusters_near(chunk.spans[s].cell);
            for (int j = 0; j < kCandidates; ++j) {
                Sums<C> sums = tally.sums(s, j);
                if (sums.count == 0) continue;
                sums.y = sums.count * y + sums.y * stride, sums.x += sums.count * chunk.x;
                to[names[j]] += sums;
            }
        }
    }

    void move(Centre& centre, const Sums<C>& all) const {
        centre = {true, rounded_mean(all.y, all.count, kFixed), rounded_mean(all.x, all.count, kFixed), {}};
        for (int c = 0; c < C; ++c)
            centre.colour[c] = static_cast<int16_t>(rounded_mean(all.colour[c], all.count, plan_.unit));
    }

    void label(int64_t band, const Regions& regions) const {
        Candidates<C> candidates;
        uint8_t choice[kChunk];
        each_chunk(band, [&](const Chunk& chunk) {
            gather(chunk, candidates);
            for (int64_t y = top(band); y < top(band + 1); ++y) {
                nearest(candidates, row_at(chunk, y), chunk.width, choice);
                if (picture_.mask != nullptr) cut(chunk, y, choice, false);
                int32_t* to = regions.row(y) + chunk.x;
                for (const Span& span : chunk.spans) {
                    const auto names = clusters_near(span.cell);
                    for (int i = span.begin; i < span.end; ++i) to[i] = names[choice[i]] + 1;
                }
            }
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

    template <typename Use>
    void each_chunk(int64_t band, const Use& use) const {
        Chunk chunk{band, 0, 0, {}};
        for (int64_t& x = chunk.x; x < plan_.width; x += kChunk) {
            chunk.width = static_cast<int>(std::min<int64_t>(kChunk, plan_.width - x));
            chunk.spans.clear();
            for (int64_t col = x * plan_.cols / plan_.width; col < plan_.cols && left(col) < x + chunk.width;
                 ++col)
                chunk.spans.push_back({band * plan_.cols + col,
                                       static_cast<int>(std::max(left(col) - x, int64_t{0})),
                                       static_cast<int>(std::min<int64_t>(left(col + 1) - x, chunk.width))});
            use(chunk);
        }
    }

    void cut(const Chunk& chunk, int64_t y, uint8_t* choice, bool seeding) const {
        const bool* inside = picture_.mask + (y + plan_.y0) * picture_.stride + plan_.x0 + chunk.x;
        for (int i = 0; i < chunk.width; ++i)
            choice[i] = !inside[i] ? kOutside : seeding ? static_cast<uint8_t>(kOwn) : choice[i];
    }

    Row<C> row_at(const Chunk& chunk, int64_t y) const {
        Row<C> row;
        for (int c = 0; c < C; ++c) row.colour[c] = picture_.plane[c].data() + y * plan_.width + chunk.x;
        row.unit = static_cast<int16_t>(plan_.unit);
        row.y = static_cast<int16_t>(position(y * kFixed) - position(top(chunk.band) * kFixed));
        return row;
    }

    // Lay out the candidates of a chunk; only differences matter, so 16 bits of each place do.
    void gather(const Chunk& chunk, Candidates<C>& to) const {
        const int64_t origin = position(top(chunk.band) * kFixed);
        for (const auto& [cell, begin, end] : chunk.spans)
            for (int j = 0; j < kCandidates; ++j) {
                const Centre& centre = candidate(chunk.band, cell - chunk.band * plan_.cols, j);
                const auto across = static_cast<int16_t>(position(centre.x));
                for (int i = begin; i < end; i += kLanes)
                    for (int lane = i; lane < i + kLanes; ++lane)
                        to.across[j][lane] = gap(static_cast<int16_t>(places_[chunk.x + lane] - across), 0);
                spread(static_cast<int16_t>(position(centre.y) - origin), to.y[j], begin, end);
                for (int c = 0; c < C; ++c) spread(centre.colour[c], to.colour[j][c], begin, end);
            }
    }

    // Fill begin..end, and some more that the next cell writes over.
    static void spread(int16_t value, int16_t* to, int begin, int end) {
        for (int i = begin; i < end; i += kLanes) std::fill_n(to + i, kLanes, value);
    }

    const Centre& candidate(int64_t row, int64_t col, int j) const {
        const int64_t cy = row + j / 3 - 1, cx = col + j % 3 - 1;
        const bool exists = 0 <= cy && cy < plan_.rows && 0 <= cx && cx < plan_.cols;
        const Centre& own = centres_[row * plan_.cols + col];
        return exists && centres_[cy * plan_.cols + cx].alive ? centres_[cy * plan_.cols + cx] : own;
    }

    const Picture<C>& picture_;
    const Plan& plan_;
    int threads_;
    std::vector<Centre> centres_;
    std::vector<std::vector<Sums<C>>> sums_;  // per thread
    std::vector<int16_t> places_;             // across, of each column
};

}  // namespace lithostream::superpixels
