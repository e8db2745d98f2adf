// The k-th smallest of a few numbers, without a branch to mispredict.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace lithostream::gridding {

constexpr size_t kLanes = 4;
using Lanes = float __attribute__((vector_size(4 * kLanes)));
using Ranks = int32_t __attribute__((vector_size(4 * kLanes)));

// Ranks each number by comparing it with every other; the ranks of `Groups` * kLanes stay in registers.
template <size_t Groups>
float kth_by_rank(const float* values, size_t count, int32_t k) {
    Lanes group[Groups];
    Ranks smaller[Groups] = {};
    std::memcpy(group, values, sizeof group);
    for (size_t i = 0; i < count; ++i)
        for (size_t g = 0; g < Groups; ++g) smaller[g] -= values[i] < group[g];  // a true lane is -1
    float found = -std::numeric_limits<float>::infinity();
    for (size_t g = 0; g < Groups; ++g)
        for (size_t lane = 0; lane < kLanes; ++lane)
            if (smaller[g][lane] < k) found = std::max(found, group[g][lane]);
    return found;
}

// `count` >= k >= 1; `values` has room for kLanes more and is reordered.
inline float kth_smallest(float* values, size_t count, size_t k) {
    std::fill_n(values + count, kLanes, std::numeric_limits<float>::infinity());
    const auto rank = static_cast<int32_t>(k);
    switch ((count + kLanes - 1) / kLanes) {
        case 1:
            return kth_by_rank<1>(values, count, rank);
        case 2:
            return kth_by_rank<2>(values, count, rank);
        case 3:
            return kth_by_rank<3>(values, count, rank);
        case 4:
            return kth_by_rank<4>(values, count, rank);
        case 5:
            return kth_by_rank<5>(values, count, rank);
        case 6:
            return kth_by_rank<6>(values, count, rank);
        case 7:
            return kth_by_rank<7>(values, count, rank);
        case 8:
            return kth_by_rank<8>(values, count, rank);
        default:
            std::nth_element(values, values + k - 1, values + count);
            return values[k - 1];
    }
}

}  // namespace lithostream::gridding
