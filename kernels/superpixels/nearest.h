// The inner loop of SLIC: which of nine candidate centres is nearest to each pixel of a row.
#pragma once

#include <algorithm>
#include <cstdint>

// One copy per instruction set, chosen at load time; integer work, so all of them agree.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define LITHOSTREAM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LITHOSTREAM_CLONES
#endif

namespace lithostream::superpixels {

constexpr int kChunk = 128;  // pixels handled at once: the candidates of a chunk stay in the first cache
constexpr int kLanes = 32;   // written at once, also past the end of a chunk
constexpr int kCandidates = 9;
constexpr int kOwn = 4;  // the candidate that started in the pixel's own cell

// Features of each pixel's nine candidates, laid out as its row is. A candidate that does not exist
// repeats the own one, which wins a tie.
template <int C>
struct Candidates {
    int16_t across[kCandidates][kChunk + kLanes];  // |x - centre|, the same for all rows
    int16_t y[kCandidates][kChunk + kLanes];
    int16_t colour[kCandidates][C][kChunk + kLanes];
};

template <int C>
struct Row {
    const uint8_t* colour[C];
    int16_t unit;
    int16_t y;
};

inline __attribute__((always_inline)) int16_t gap(int16_t a, int16_t b) {
    return std::max(a, b) - std::min(a, b);
}

// The loop over the candidates is unrolled, so what is nearest so far stays in registers; one width of number
// in each loop.
template <int C>
inline __attribute__((always_inline)) void nearest_of(const Candidates<C>& all, const Row<C>& row, int width,
                                                      uint8_t* __restrict choice) {
    int16_t colour[C][kChunk], chosen[kChunk];
    for (int c = 0; c < C; ++c)
        for (int x = 0; x < width; ++x) colour[c][x] = static_cast<int16_t>(row.colour[c][x] * row.unit);
    for (int x = 0; x < width; ++x) {
        const auto distance = [&](int j) __attribute__((always_inline)) {
            int16_t total = all.across[j][x] + gap(row.y, all.y[j][x]);
            for (int c = 0; c < C; ++c) total += gap(colour[c][x], all.colour[j][c][x]);
            return total;
        };
        int16_t best = distance(kOwn), candidate = kOwn;
#pragma GCC unroll 9
        for (int j = 0; j < kCandidates; ++j) {
            if (j == kOwn) continue;
            const int16_t offered = distance(j);
            candidate = offered < best ? static_cast<int16_t>(j) : candidate;
            best = std::min(best, offered);
        }
        chosen[x] = candidate;
    }
    for (int x = 0; x < width; ++x) choice[x] = static_cast<uint8_t>(chosen[x]);
}

LITHOSTREAM_CLONES inline void nearest(const Candidates<1>& all, const Row<1>& row, int width,
                                       uint8_t* choice) {
    nearest_of(all, row, width, choice);
}
LITHOSTREAM_CLONES inline void nearest(const Candidates<2>& all, const Row<2>& row, int width,
                                       uint8_t* choice) {
    nearest_of(all, row, width, choice);
}
LITHOSTREAM_CLONES inline void nearest(const Candidates<3>& all, const Row<3>& row, int width,
                                       uint8_t* choice) {
    nearest_of(all, row, width, choice);
}
LITHOSTREAM_CLONES inline void nearest(const Candidates<4>& all, const Row<4>& row, int width,
                                       uint8_t* choice) {
    nearest_of(all, row, width, choice);
}

}  // namespace lithostream::superpixels
