// Connected pieces of a labelled image, held as runs of equal label in a row; small ones are merged away.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "superpixels/bands.h"
#include "superpixels/cluster.h"
#include "superpixels/forest.h"

namespace lithostream::superpixels {

constexpr int64_t kBandRows = 64;

// Relabels regions (1.. inside the mask, 0 outside) in place.
template <int C>
class Pieces {
  public:
    Pieces(const Picture<C>& picture, const Plan& plan, int threads, const Regions& regions)
        : picture_(picture), plan_(plan), threads_(threads), regions_(regions) {}

    void run() {
        find_runs();
        Forest forest(static_cast<int32_t>(runs_.size()));
        join_rows(forest);
        const auto [piece, count] = forest.compact();
        std::vector<Mass> masses(count);
        for (size_t r = 0; r < runs_.size(); ++r) masses[piece[r]] += masses_[r];
        Pairs pairs = small_pairs(piece, masses);
        write(piece, merge_small(std::move(masses), std::move(pairs)));
    }

  private:
    struct Run {
        int32_t begin, end, region;
    };

    struct Mass {
        int64_t count = 0;
        std::array<int64_t, C> colour{};  // summed

        void operator+=(const Mass& other) {
            count += other.count;
            for (int c = 0; c < C; ++c) colour[c] += other.colour[c];
        }
    };

    struct Mean {
        int32_t small;
        std::array<int32_t, C> colour;
    };

    using Pairs = std::vector<std::pair<int32_t, int32_t>>;

    int64_t bands() const { return (plan_.height + kBandRows - 1) / kBandRows; }

    template <typename Use>
    void each_row(int64_t band, const Use& use) const {
        for (int64_t y = band * kBandRows; y < std::min((band + 1) * kBandRows, plan_.height); ++y) use(y);
    }

    void find_runs() {
        first_.assign(plan_.height + 1, 0);
        for_each_band(bands(), threads_, [&](int, int64_t band) {
            each_row(band, [&](int64_t y) { first_[y + 1] = count_runs(regions_.row(y)); });
        });
        for (int64_t y = 0; y < plan_.height; ++y) first_[y + 1] += first_[y];
        runs_.resize(first_.back());
        masses_.resize(first_.back());
        for_each_band(bands(), threads_, [&](int, int64_t band) {
            each_row(band, [&](int64_t y) { fill_runs(y, first_[y]); });
        });
    }

    int32_t count_runs(const int32_t* row) const {
        int32_t count = row[0] != 0;
        for (int64_t x = 1; x < plan_.width; ++x) count += row[x] != row[x - 1] && row[x] != 0;
        return count;
    }

    void fill_runs(int64_t y, int32_t run) {
        const int32_t* row = regions_.row(y);
        for (int64_t x = 0; x < plan_.width;) {
            const int64_t begin = x;
            Mass mass;
            for (; x < plan_.width && row[x] == row[begin]; ++x)
                for (int c = 0; c < C; ++c) mass.colour[c] += picture_.plane[c][y * plan_.width + x];
            if (row[begin] == 0) continue;
            mass.count = x - begin;
            masses_[run] = mass;
            runs_[run++] = {static_cast<int32_t>(begin), static_cast<int32_t>(x), row[begin]};
        }
    }

    // Call meet(a, b) for each run a of row y - 1 and b of row y that share a column.
    template <typename Meet>
    void each_overlap(int64_t y, const Meet& meet) const {
        for (int32_t a = first_[y - 1], b = first_[y]; a < first_[y] && b < first_[y + 1];) {
            if (runs_[a].begin < runs_[b].end && runs_[b].begin < runs_[a].end) meet(a, b);
            const bool above_ends = runs_[a].end < runs_[b].end;
            a += above_ends, b += !above_ends;
        }
    }

    void join_rows(Forest& forest) const {
        const auto join = [&](int32_t a, int32_t b) {
            if (runs_[a].region == runs_[b].region) forest.join(a, b);
        };
        for_each_band(bands(), threads_, [&](int, int64_t band) {  // sets within a band touch no other band
            each_row(band, [&](int64_t y) {
                if (y > band * kBandRows) each_overlap(y, join);
            });
        });
        for (int64_t y = kBandRows; y < plan_.height; y += kBandRows) each_overlap(y, join);
    }

    // Neighbouring pieces of which one is small; a pair may come twice, the order is left to chance.
    Pairs small_pairs(const std::vector<int32_t>& piece, const std::vector<Mass>& masses) const {
        std::vector<Pairs> found(threads_);
        for_each_band(bands(), threads_, [&](int thread, int64_t band) {
            const auto meet = [&](int32_t a, int32_t b) {
                const std::pair<int32_t, int32_t> pair = std::minmax(piece[a], piece[b]);
                if (pair.first == pair.second) return;
                if (!small(masses[pair.first]) && !small(masses[pair.second])) return;
                if (found[thread].empty() || found[thread].back() != pair) found[thread].push_back(pair);
            };
            each_row(band, [&](int64_t y) {
                for (int32_t r = first_[y] + 1; r < first_[y + 1]; ++r)
                    if (runs_[r - 1].end == runs_[r].begin) meet(r - 1, r);
                if (y > 0) each_overlap(y, meet);
            });
        });
        for (int thread = 1; thread < threads_; ++thread)
            found[0].insert(found[0].end(), found[thread].begin(), found[thread].end());
        return std::move(found[0]);
    }

    bool small(const Mass& masses) const { return masses.count < plan_.min_size; }

    // Each small region chooses a neighbour, all choices are joined, until none is left that can choose.
    // Choices of one round do not see each other, so their order does not matter.
    // Returns the region of each piece.
    std::vector<int32_t> merge_small(std::vector<Mass> masses, Pairs pairs) const {
        std::vector<int32_t> region(masses.size());
        std::iota(region.begin(), region.end(), 0);
        while (!pairs.empty()) {
            const auto [number, count] = choose(masses, pairs).compact();
            std::vector<Mass> merged(count);
            for (size_t k = 0; k < masses.size(); ++k) merged[number[k]] += masses[k];
            masses = std::move(merged);
            for (int32_t& k : region) k = number[k];
            Pairs left;
            for (const auto& [a, b] : pairs)
                if (number[a] != number[b] && (small(masses[number[a]]) || small(masses[number[b]])))
                    left.emplace_back(number[a], number[b]);
            pairs = std::move(left);
        }
        return region;
    }

    Forest choose(const std::vector<Mass>& masses, const Pairs& pairs) const {
        std::vector<Mean> means(masses.size());
        for (size_t k = 0; k < masses.size(); ++k) {
            means[k].small = small(masses[k]);
            for (int c = 0; c < C; ++c)
                means[k].colour[c] =
                    static_cast<int32_t>(rounded_mean(masses[k].colour[c], masses[k].count, kFixed));
        }
        constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
        std::vector<int64_t> choices(masses.size(), kNone);  // colour gap, then region
        for (const auto& [a, b] : pairs) {
            const int64_t gap = squared_gap(means[a], means[b]) << 32;
            if (means[a].small) choices[a] = std::min(choices[a], gap | b);
            if (means[b].small) choices[b] = std::min(choices[b], gap | a);
        }
        Forest forest(static_cast<int32_t>(masses.size()));
        for (int32_t k = 0; k < forest.size(); ++k)
            if (choices[k] != kNone) forest.join(k, static_cast<int32_t>(choices[k] & 0xffffffff));
        return forest;
    }

    static int64_t squared_gap(const Mean& a, const Mean& b) {
        int64_t total = 0;
        for (int c = 0; c < C; ++c) {
            const int64_t gap = a.colour[c] - b.colour[c];
            total += gap * gap;
        }
        return total;
    }

    void write(const std::vector<int32_t>& piece, const std::vector<int32_t>& region) const {
        for_each_band(bands(), threads_, [&](int, int64_t band) {
            each_row(band, [&](int64_t y) {
                for (int32_t r = first_[y]; r < first_[y + 1]; ++r)
                    std::fill(regions_.row(y) + runs_[r].begin, regions_.row(y) + runs_[r].end,
                              region[piece[r]] + 1);
            });
        });
    }

    const Picture<C>& picture_;
    const Plan& plan_;
    int threads_;
    Regions regions_;
    std::vector<Run> runs_;
    std::vector<Mass> masses_;    // of the runs
    std::vector<int32_t> first_;  // of row y among the runs
};

}  // namespace lithostream::superpixels
