// Connected pieces within a band of rows, found on runs of equal cluster.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "superpixels/cluster.h"
#include "superpixels/forest.h"

namespace lithostream::superpixels {

constexpr int64_t kLongest = 256;  // px of a run, so that the sum of a channel fits 16 bits
constexpr int kSlotBits = 11;
constexpr int64_t kFill = 16;  // labels written at once

using Pair = std::pair<int32_t, int32_t>;
using Pairs = std::vector<Pair>;

template <int C>
struct Mass {
    int64_t count = 0;                // 0 outside the mask
    std::array<int64_t, C> colour{};  // summed

    void operator+=(const Mass& other) {
        count += other.count;
        for (int c = 0; c < C; ++c) colour[c] += other.colour[c];
    }
};

// Both lists are written at their end whatever a meeting is, and one of them grows: no branch to guess.
class Meetings {
  public:
    void room(size_t more) {
        same.resize(std::max(same.size(), more)), other.resize(std::max(other.size(), more));
        same_count = other_count = 0;
    }

    void add(Pair pair, int32_t one, int32_t two) {
        same[same_count] = other[other_count] = pair;
        same_count += one == two;
        other_count += (one != two) & (one != 0) & (two != 0);
    }

    Pairs same, other;
    size_t same_count = 0, other_count = 0;
};

struct Runs {
    std::vector<int32_t> ends;  // column after each
    std::vector<int32_t> clusters;
    std::vector<uint64_t> sums;  // of up to four colours, 16 bits each

    void clear() { ends.clear(), clusters.clear(), sums.clear(); }
    int32_t count() const { return static_cast<int32_t>(ends.size()); }
};

// Memory of one thread, used again for each band.
struct Scratch {
    std::vector<int32_t> row;
    Runs runs;
    Meetings meetings;
    Pairs neighbours;  // runs
};

// Copy a row; a pixel unlike its four neighbours joins the cluster that two of them share, or else the left
// one.
LITHOSTREAM_CLONES inline void settle(const int32_t* up, const int32_t* row, const int32_t* down,
                                      int64_t width, int32_t* __restrict to) {
    to[0] = row[0], to[width - 1] = row[width - 1];
    for (int64_t x = 1; x < width - 1; ++x) {
        const int32_t here = row[x], left = row[x - 1], right = row[x + 1], above = up[x], below = down[x];
        const bool lone = (left != here) & (right != here) & (above != here) & (below != here);
        const bool inside = (here != 0) & (left != 0) & (right != 0) & (above != 0) & (below != 0);
        const int32_t other = (right == above) | (right == below) ? right : above == below ? above : left;
        to[x] = lone & inside ? other : here;
    }
}

// The runs of some rows, one after the other. Each row is covered from end to end, outside the mask by runs
// of cluster 0. Connected runs of one cluster are a piece; pieces are numbered by their first run.
template <int C>
class Band {
  public:
    Band(const Picture<C>& picture, const Plan& plan, const Regions& regions, int64_t top, int64_t bottom,
         Scratch& scratch)
        : top_(top), bottom_(bottom), first_{0} {
        Forest forest;
        auto& [row, runs, meetings, neighbours] = scratch;
        neighbours.clear();
        runs.clear();
        row.resize(plan.width);
        for (int64_t y = top; y < bottom; ++y) {
            const bool edge = y == 0 || y + 1 == plan.height;  // a row beside the image is like this one
            settle(regions.row(edge ? y : y - 1), regions.row(y), regions.row(edge ? y : y + 1), plan.width,
                   row.data());
            for (int64_t x = 0; x < plan.width; x += kLongest)
                scan(picture, y * plan.width + x, row.data(), x, std::min(x + kLongest, plan.width), runs);
            first_.push_back(runs.count());
            forest.grow(runs.count());
            meet(y - top, runs, meetings);
            for (size_t i = 0; i < meetings.same_count; ++i)
                forest.join(meetings.same[i].first, meetings.same[i].second);
            neighbours.insert(neighbours.end(), meetings.other.begin(),
                              meetings.other.begin() + meetings.other_count);
        }
        piece_ = forest.numbers(pieces_);
        ends_ = runs.ends;
        weigh(runs);
        keep_small(neighbours, plan.min_size);
    }

    int32_t pieces() const { return pieces_; }
    std::vector<Mass<C>>& masses() { return masses_; }
    Pairs& pairs() { return pairs_; }  // neighbouring pieces of which one is small; some come twice

    // Call use(own piece, piece of the other, same cluster) for runs of the first row and of the last row of
    // the band above that share a column.
    template <typename Use>
    void each_contact(const Band& above, const Use& use) const {
        const auto last = static_cast<size_t>(above.bottom_ - above.top_ - 1);
        overlaps(above.ends_, above.first_[last], above.first_[last + 1], ends_, 0,
                 [&](int32_t a, int32_t b) {
                     const int32_t own = piece_[b], other = above.piece_[a];
                     use(own, other, clusters_[own], above.clusters_[other]);
                 });
    }

    // Write the label of its piece to each pixel.
    void write(const Regions& regions, int64_t width, const int32_t* label) const {
        for (int64_t y = top_; y < bottom_; ++y) {
            int32_t* row = regions.row(y);
            int64_t x = 0;
            for (int32_t r = first_[y - top_]; r < first_[y - top_ + 1]; ++r) {
                const int32_t value = label[piece_[r]];  // overshoots are written over by the next run
                for (; x < ends_[r] && x + kFill <= width; x += kFill) std::fill_n(row + x, kFill, value);
                if (x < ends_[r]) std::fill(row + x, row + ends_[r], value);
                x = ends_[r];
            }
        }
    }

  private:
    // Append the runs of the pixels begin..end of a row; their colours start at `at` in the planes.
    static void scan(const Picture<C>& picture, int64_t at, const int32_t* row, int64_t begin, int64_t end,
                     Runs& runs) {
        uint64_t colours[kLongest], before[kLongest + 1], total = 0;
        int32_t starts[kLongest + 1];
        const int width = static_cast<int>(end - begin);
        pack(picture, at, width, colours);
        int count = 0;
        for (int i = 0; i < width; ++i) {
            starts[count] = i, before[count] = total;
            count += i == 0 || row[begin + i] != row[begin + i - 1];
            total += colours[i];
        }
        starts[count] = width, before[count] = total;
        for (int r = 0; r < count; ++r) {
            runs.ends.push_back(static_cast<int32_t>(begin + starts[r + 1]));
            runs.clusters.push_back(row[begin + starts[r]]);
            runs.sums.push_back(before[r + 1] - before[r]);
        }
    }

    // All neighbours in a row of the band and between it and the row above.
    void meet(int64_t row, const Runs& runs, Meetings& meetings) const {
        const int32_t begin = first_[row], end = first_[row + 1], above = row > 0 ? first_[row - 1] : begin;
        meetings.room(begin - above + 2 * (end - begin));
        const int32_t* cluster = runs.clusters.data();
        const auto add = [&](int32_t a, int32_t b) { meetings.add({a, b}, cluster[a], cluster[b]); };
        for (int32_t r = begin; r + 1 < end; ++r) add(r, r + 1);
        if (row > 0) overlaps(runs.ends, above, begin, runs.ends, begin, add);
    }

    // Call use(a, b) for runs of two rows that share a column: those from `a` to `a_end`, and those from `b`.
    template <typename Use>
    static void overlaps(const std::vector<int32_t>& above, int32_t a, int32_t a_end,
                         const std::vector<int32_t>& below, int32_t b, const Use& use) {
        while (a < a_end) {
            use(a, b);
            const int32_t above_end = above[a], below_end = below[b];
            a += above_end <= below_end, b += below_end <= above_end;
        }
    }

    void weigh(const Runs& runs) {
        masses_.resize(pieces_);
        clusters_.resize(pieces_);
        for (size_t row = 0; row + 1 < first_.size(); ++row)
            for (int32_t r = first_[row], begin = 0; r < first_[row + 1]; begin = ends_[r++]) {
                Mass<C>& mass = masses_[piece_[r]];
                clusters_[piece_[r]] = runs.clusters[r];
                mass.count += runs.clusters[r] != 0 ? ends_[r] - begin : 0;
                for (int c = 0; c < C; ++c) mass.colour[c] += runs.sums[r] >> 16 * c & 0xffff;
            }
    }

    // Most pairs meet again within a few rows: the last one of each slot is remembered.
    void keep_small(Pairs& neighbours, int64_t min_size) {
        std::array<Pair, 1 << kSlotBits> seen{};  // (0, 0) is no pair
        size_t count = 0;
        for (const auto& [a, b] : neighbours) {
            const int32_t one = piece_[a], two = piece_[b];
            const Pair pair{std::min(one, two), std::max(one, two)};
            const bool small = (masses_[one].count < min_size) | (masses_[two].count < min_size);
            const auto mixed =
                static_cast<uint32_t>(pair.first) * 2654435761u ^ static_cast<uint32_t>(pair.second) * 40503u;
            Pair& last = seen[mixed >> 8 & (seen.size() - 1)];
            neighbours[count] = pair;
            count += small & ((last.first != pair.first) | (last.second != pair.second));
            last = pair;
        }
        pairs_.assign(neighbours.begin(), neighbours.begin() + count);
    }

    int64_t top_, bottom_;
    int32_t pieces_ = 0;
    std::vector<int32_t> first_;     // run of each row, and the end
    std::vector<int32_t> ends_;      // column after each run
    std::vector<int32_t> piece_;     // of each run
    std::vector<int32_t> clusters_;  // of each piece
    std::vector<Mass<C>> masses_;
    Pairs pairs_;
};

}  // namespace lithostream::superpixels
