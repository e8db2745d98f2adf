// Connected pieces of a clustered image; small ones are merged away.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "superpixels/cluster.h"
#include "superpixels/forest.h"
#include "superpixels/runs.h"
#include "threads.h"

namespace lithostream::superpixels {

constexpr int64_t kBandRows = 64;
constexpr size_t kPairsWorthThreads = 1 << 15;

// Relabels clusters (1.. inside the mask, 0 outside) in place.
template <int C>
class Pieces {
  public:
    Pieces(const Picture<C>& picture, const Plan& plan, int threads, const Regions& regions)
        : plan_(plan),
          threads_(threads),
          regions_(regions),
          bands_((plan.height + kBandRows - 1) / kBandRows) {
        std::vector<Scratch> scratch(threads);
        share(bands(), threads_, [&](int thread, int64_t band) {
            const int64_t top = band * kBandRows, bottom = std::min(top + kBandRows, plan.height);
            bands_[band].emplace(picture, plan, regions, top, bottom, scratch[thread]);
        });
    }

    // Each small region chooses a neighbour, all choices are joined, until none is left that can choose.
    // Choices of one round do not see each other, so their order does not matter.
    void run() {
        merge(gather());
        while (any_pair()) merge(choose());
        write();
    }

  private:
    static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

    struct Mean {
        int32_t small = 0;
        std::array<int32_t, C> colour{};
    };

    int64_t bands() const { return static_cast<int64_t>(bands_.size()); }
    bool small(const Mass<C>& mass) const { return mass.count < plan_.min_size; }

    bool any_pair() const {
        return std::any_of(pairs_.begin(), pairs_.end(), [](const Pairs& pairs) { return !pairs.empty(); });
    }

    // Number the pieces of all bands through and join those that touch across a seam.
    Forest gather() {
        offsets_.assign(1, 0);
        for (const auto& band : bands_) offsets_.push_back(offsets_.back() + band->pieces());
        region_.resize(offsets_.back());
        std::iota(region_.begin(), region_.end(), 0);
        masses_.resize(region_.size());
        pairs_.resize(bands() + 1);
        share(bands(), threads_, [&](int, int64_t i) {
            std::copy(bands_[i]->masses().begin(), bands_[i]->masses().end(), masses_.begin() + offsets_[i]);
            pairs_[i] = std::move(bands_[i]->pairs());
            for (auto& [a, b] : pairs_[i]) a += offsets_[i], b += offsets_[i];
        });
        Forest forest(offsets_.back());
        for (int64_t i = 1; i < bands(); ++i)
            bands_[i]->each_contact(*bands_[i - 1],
                                    [&](int32_t own, int32_t other, int32_t one, int32_t two) {
                                        const Pair pair{offsets_[i - 1] + other, offsets_[i] + own};
                                        if (one == two) forest.join(pair.first, pair.second);
                                        if (one != two && one != 0 && two != 0) pairs_.back().push_back(pair);
                                    });
        return forest;
    }

    // Make each set of regions one; pairs that no longer matter go.
    void merge(const Forest& forest) {
        int32_t count;
        const std::vector<int32_t> number = forest.numbers(count);
        std::vector<Mass<C>> merged(count);
        for (size_t k = 0; k < masses_.size(); ++k) merged[number[k]] += masses_[k];
        masses_ = std::move(merged);
        for (int32_t& k : region_) k = number[k];
        share(static_cast<int64_t>(pairs_.size()), threads_worth(), [&](int, int64_t i) {
            Pairs& pairs = pairs_[i];
            size_t kept = 0;
            for (const auto& [a, b] : pairs) {
                const Pair pair{number[a], number[b]};
                const bool matters = small(masses_[pair.first]) | small(masses_[pair.second]);
                pairs[kept] = pair;
                kept += (pair.first != pair.second) & matters;
            }
            pairs.resize(kept);
        });
    }

    int threads_worth() const {
        size_t total = 0;
        for (const Pairs& pairs : pairs_) total += pairs.size();
        return total < kPairsWorthThreads ? 1 : threads_;
    }

    // What each small region chooses: the gap in colour, then the neighbour; no branch, none could be
    // guessed.
    Forest choose() {
        const std::vector<Mean> means = this->means();
        const int threads = threads_worth();
        std::vector<std::vector<int64_t>> choices(threads, std::vector<int64_t>(means.size(), kNone));
        share(static_cast<int64_t>(pairs_.size()), threads, [&](int thread, int64_t i) {
            int64_t* choice = choices[thread].data();
            for (const auto& [a, b] : pairs_[i]) {
                const int64_t gap = squared_gap(means[a], means[b]) << 32;
                choice[a] = std::min(choice[a], means[a].small ? gap | b : kNone);
                choice[b] = std::min(choice[b], means[b].small ? gap | a : kNone);
            }
        });
        Forest forest(static_cast<int32_t>(means.size()));
        for (int32_t k = 0; k < forest.size(); ++k) {
            int64_t choice = kNone;
            for (const auto& one : choices) choice = std::min(choice, one[k]);
            if (choice != kNone) forest.join(k, static_cast<int32_t>(choice & 0xffffffff));
        }
        return forest;
    }

    std::vector<Mean> means() const {
        constexpr int64_t kPart = 4096;
        const auto count = static_cast<int64_t>(masses_.size());
        std::vector<Mean> means(count);
        share((count + kPart - 1) / kPart, count < 4 * kPart ? 1 : threads_, [&](int, int64_t part) {
            for (int64_t k = part * kPart; k < std::min((part + 1) * kPart, count); ++k) {
                const Mass<C>& mass = masses_[k];
                means[k].small = small(mass);
                for (int c = 0; c < C && mass.count > 0; ++c)
                    means[k].colour[c] =
                        static_cast<int32_t>(rounded_mean(mass.colour[c], mass.count, kFixed));
            }
        });
        return means;
    }

    static int64_t squared_gap(const Mean& a, const Mean& b) {
        int64_t total = 0;
        for (int c = 0; c < C; ++c) {
            const int64_t gap = a.colour[c] - b.colour[c];
            total += gap * gap;
        }
        return total;
    }

    // Number the regions inside the mask from 1 and write them.
    void write() const {
        std::vector<int32_t> label(masses_.size());
        int32_t count = 0;
        for (size_t k = 0; k < masses_.size(); ++k) label[k] = masses_[k].count > 0 ? ++count : 0;
        std::vector<int32_t> of_piece(region_.size());
        for (size_t k = 0; k < region_.size(); ++k) of_piece[k] = label[region_[k]];
        share(bands(), threads_, [&](int, int64_t i) {
            bands_[i]->write(regions_, plan_.width, of_piece.data() + offsets_[i]);
        });
    }

    const Plan& plan_;
    int threads_;
    Regions regions_;
    std::vector<std::optional<Band<C>>> bands_;
    std::vector<int32_t> offsets_;  // of each band's pieces among all
    std::vector<int32_t> region_;   // of each piece
    std::vector<Mass<C>> masses_;   // of each region
    std::vector<Pairs> pairs_;  // neighbouring regions of which one is small, by band; the last at the seams
};

}  // namespace lithostream::superpixels
