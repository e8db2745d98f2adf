// Disjoint sets of small integers (Tarjan 1975), for connected pieces and their mergers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace lithostream::superpixels {

// Disjoint sets whose name is their lowest member.
class Forest {
  public:
    explicit Forest(int32_t count = 0) : parent_(count) { std::iota(parent_.begin(), parent_.end(), 0); }

    int32_t size() const { return static_cast<int32_t>(parent_.size()); }

    int32_t add() {
        parent_.push_back(size());
        return parent_.back();
    }

    int32_t find(int32_t i) {
        while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
        return i;
    }

    void join(int32_t a, int32_t b) {
        const auto [low, high] = std::minmax({find(a), find(b)});
        parent_[high] = low;
    }

    // Number of each member's set, ascending by lowest member, and the number of sets.
    std::pair<std::vector<int32_t>, int32_t> compact() {
        std::vector<int32_t> number(parent_.size());
        int32_t count = 0;
        for (int32_t i = 0; i < size(); ++i) {
            const int32_t root = find(i);
            number[i] = root == i ? count++ : number[root];
        }
        return {number, count};
    }

  private:
    std::vector<int32_t> parent_;
};

}  // namespace lithostream::superpixels
