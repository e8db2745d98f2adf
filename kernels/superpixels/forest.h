// Disjoint sets of small integers (Tarjan 1975), for connected pieces and their mergers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace lithostream::superpixels {

// Disjoint sets whose name is their lowest member.
class Forest {
  public:
    explicit Forest(int32_t count = 0) : parent_(count) { std::iota(parent_.begin(), parent_.end(), 0); }

    int32_t size() const { return static_cast<int32_t>(parent_.size()); }

    void grow(int32_t count) {
        const int32_t old = size();
        parent_.resize(count);
        std::iota(parent_.begin() + old, parent_.end(), old);
    }

    int32_t find(int32_t i) {
        while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
        return i;
    }

    void join(int32_t a, int32_t b) {
        a = find(a), b = find(b);
        parent_[std::max(a, b)] = std::min(a, b);
    }

    // Number of each member's set, ascending by lowest member; `count` becomes the number of sets.
    std::vector<int32_t> numbers(int32_t& count) const {
        std::vector<int32_t> number(parent_.size());
        count = 0;
        for (int32_t i = 0; i < size(); ++i) {  // a parent is lower, so it has its number
            const bool root = parent_[i] == i;
            number[i] = root ? count : number[parent_[i]];
            count += root;
        }
        return number;
    }

  private:
    std::vector<int32_t> parent_;
};

}  // namespace lithostream::superpixels
