// Which points can be among the k nearest of some cell of a block.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gridding/bounds.h"
#include "gridding/kth_smallest.h"

namespace lithostream::gridding {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Splits a block along its longer side, or both where they are about as long; calls `part` for each.
template <typename Part>
void split(const Block& b, const Box& box, Part part) {
    const bool by_column = b.columns > 1 && (b.rows == 1 || 2 * box.half_x >= box.half_y);
    const bool by_row = b.rows > 1 && (b.columns == 1 || 2 * box.half_y >= box.half_x);
    const int64_t left = by_column ? b.columns / 2 : b.columns, top = by_row ? b.rows / 2 : b.rows;
    for (const auto& [row, rows] : {std::pair{b.row, top}, {b.row + top, b.rows - top}})
        for (const auto& [column, columns] : {std::pair{b.column, left}, {b.column + left, b.columns - left}})
            if (rows > 0 && columns > 0) part(Block{row, column, rows, columns});
}

// Memory that grows and is not cleared.
template <typename T>
class Buffer {
  public:
    T* room(size_t count) {
        if (memory_.size() < count) memory_.resize(std::max(count, 2 * memory_.size()));
        return memory_.data();
    }
    const T* data() const { return memory_.data(); }

  private:
    std::vector<T> memory_;
};

// Points in ascending order of their index.
struct Candidates {
    size_t count = 0;
    Buffer<double> x, y;
    Buffer<int32_t> index;
};

// What limits the neighbours of a cell.
struct Reach {
    size_t k;
    double squared_radius;

    bool takes_all(size_t count) const { return count <= k && squared_radius == kInfinity; }
};

// Copies the candidates of a larger block that the cells of a smaller one can reach: see `Ends`.
class Narrowing {
  public:
    void operator()(const Box& box, const Reach& reach, const Candidates& from, Candidates& to) {
        const size_t count = from.count;
        lower_.room(count), upper_.room(count), rough_.room(count + kLanes);
        bound(box, from);
        if (reach.squared_radius < kInfinity) drop_beyond(box, reach.squared_radius, from);
        double limit = std::numeric_limits<double>::max();
        if (count > reach.k)  // rounded up, since the float may be below the number it stands for
            limit = kth_smallest(rough_.room(count), count, reach.k) * (1 + 2e-7) + 2e-38;
        double *x = to.x.room(count), *y = to.y.room(count), *lower = lower_.room(count);
        int32_t* index = to.index.room(count);
        const double *from_x = from.x.data(), *from_y = from.y.data();
        const int32_t* from_index = from.index.data();
        size_t kept = 0;
        for (size_t i = 0; i < count; ++i) {
            x[kept] = from_x[i], y[kept] = from_y[i], index[kept] = from_index[i];
            kept += lower[i] <= limit;
        }
        to.count = kept;
    }

  private:
    void bound(const Box& box, const Candidates& from) {
        const double *x = from.x.data(), *y = from.y.data();
        double *lower = lower_.room(from.count), *upper = upper_.room(from.count);
        float* rough = rough_.room(from.count);
        for (size_t i = 0; i < from.count; ++i) {
            const Ends ends(box, x[i], y[i]);
            lower[i] = ends.lower, upper[i] = ends.upper;
            rough[i] = static_cast<float>(upper[i]);
        }
    }

    void drop_beyond(const Box& box, double squared_radius, const Candidates& from) {
        const double *x = from.x.data(), *y = from.y.data(), *upper = upper_.data();
        double* lower = lower_.room(from.count);
        for (size_t i = 0; i < from.count; ++i)
            if (beyond(box, x[i], y[i], upper[i], squared_radius)) lower[i] = kInfinity;
    }

    Buffer<double> lower_, upper_;
    Buffer<float> rough_;
};

}  // namespace lithostream::gridding
