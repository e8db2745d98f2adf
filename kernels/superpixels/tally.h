// Sums over the pixels of a few rows, by cell and chosen candidate.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "superpixels/nearest.h"

namespace lithostream::superpixels {

constexpr uint8_t kOutside = kCandidates;  // chosen by a pixel outside the mask

// The columns of a chunk that lie in one cell, counted from its first.
struct Span {
    int64_t cell;
    int begin, end;
};

template <int C>
struct Sums {
    int64_t count = 0, y = 0, x = 0;
    std::array<int64_t, C> colour{};

    void operator+=(const Sums& other) {
        count += other.count, y += other.y, x += other.x;
        for (int c = 0; c < C; ++c) colour[c] += other.colour[c];
    }
};

// Two words a pixel are added without a branch, next pixels apart so that no sum waits for the one before.
// One holds three colours of 21 bits; the other count, x, row and the fourth colour.
template <int C>
class Tally {
  public:
    static constexpr int kRows = 16;  // of up to kChunk pixels fit the words

    void reset(size_t spans) { cells_.assign(spans, {}), rows_ = 0; }
    bool full() const { return rows_ == kRows; }

    void add(const Row<C>& row, const std::vector<Span>& spans, const uint8_t* choice) {
        uint64_t words[kChunk][2];
        const int width = spans.back().end;
        for (int i = 0; i < width; ++i) {
            words[i][0] = row.colour[0][i];
            for (int c = 1; c < std::min(C, 3); ++c) words[i][0] |= uint64_t{row.colour[c][i]} << 21 * c;
            words[i][1] = 1 | static_cast<uint64_t>(i) << kX | static_cast<uint64_t>(rows_) << kY;
            if constexpr (C == 4) words[i][1] |= uint64_t{row.colour[3][i]} << kFourth;
        }
        for (size_t s = 0; s < spans.size(); ++s) {
            auto& cell = cells_[s];
            const auto count = [&](int i) {
                uint64_t* to = cell[i % kWays][choice[i]].data();
                to[0] += words[i][0], to[1] += words[i][1];
            };
            for (int i = spans[s].begin; i < spans[s].end; ++i) count(i);
        }
        ++rows_;
    }

    // The sums of a span's pixels that chose candidate j; x from its chunk's first, y in rows added.
    Sums<C> sums(size_t span, int j) const {
        uint64_t words[2] = {};
        for (const auto& way : cells_[span])
            for (int w = 0; w < 2; ++w) words[w] += way[j][w];
        Sums<C> sums{bits(words[1], 0, kX), bits(words[1], kY, kFourth), bits(words[1], kX, kY), {}};
        for (int c = 0; c < std::min(C, 3); ++c) sums.colour[c] = bits(words[0], 21 * c, 21 * c + 21);
        if constexpr (C == 4) sums.colour[3] = bits(words[1], kFourth, 64);
        return sums;
    }

  private:
    static constexpr int kWays = 4;
    static constexpr int kX = 12, kY = 30, kFourth = 45;  // first bits in the second word

    static int64_t bits(uint64_t word, int from, int to) {
        return static_cast<int64_t>(word << (64 - to) >> (64 - to + from));
    }

    std::vector<std::array<std::array<std::array<uint64_t, 2>, kCandidates + 1>, kWays>> cells_;
    int rows_ = 0;
};

}  // namespace lithostream::superpixels
