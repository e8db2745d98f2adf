// Which points can be among the k nearest of some cell of a block.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gridding/kth_smallest.h"

namespace lithostream::gridding {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// More than the rounding of any sum of squares below, relative to its terms.
constexpr double kRounding = 1e-14;

struct Grid {
    double x0, y0, dx, dy;

    double x(int64_t column) const { return x0 + dx * static_cast<double>(column); }
    double y(int64_t row) const { return y0 + dy * static_cast<double>(row); }
};

// Cells [row, row + rows) x [column, column + columns).
struct Block {
    int64_t row, column, rows, columns;
};

// A box around the centres of the cells of a block.
struct Box {
    double x, y, half_x, half_y;

    Box(const Grid& grid, const Block& b)
        : Box(grid.x(b.column), grid.x(b.column + b.columns - 1), grid.y(b.row), grid.y(b.row + b.rows - 1)) {
    }

  private:
    Box(double x0, double x1, double y0, double y1)
        : x(x0 + (x1 - x0) / 2),
          y(y0 + (y1 - y0) / 2),
          half_x(std::max(std::abs(x0 - x), std::abs(x1 - x))),
          half_y(std::max(std::abs(y0 - y), std::abs(y1 - y))) {}
};

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

// Copies the candidates of a larger block that the cells of a smaller one can reach.
//
// With c the middle of the box and q a cell, |p - q|^2 = |p - c|^2 - 2 (p - c).(q - c) + |q - c|^2, and the
// last term is the same for every point. The others lie within |p - c|^2 -+ 2 |p - c|.half over the box,
// so a point whose lower end is above the k-th smallest upper end is farther than k others from every cell.
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
        const double corner = box.half_x * box.half_x + box.half_y * box.half_y;
        const double *x = from.x.data(), *y = from.y.data();
        double *lower = lower_.room(from.count), *upper = upper_.room(from.count);
        float* rough = rough_.room(from.count);
        for (size_t i = 0; i < from.count; ++i) {
            const double dx = std::abs(x[i] - box.x), dy = std::abs(y[i] - box.y);
            const double middle = dx * dx + dy * dy, swing = 2 * (dx * box.half_x + dy * box.half_y);
            const double slack = kRounding * (middle + swing + corner);
            lower[i] = middle - swing - slack;
            upper[i] = middle + swing + slack;
            rough[i] = static_cast<float>(upper[i]);
        }
    }

    void drop_beyond(const Box& box, double squared_radius, const Candidates& from) {
        const double *x = from.x.data(), *y = from.y.data(), *upper = upper_.data();
        double* lower = lower_.room(from.count);
        for (size_t i = 0; i < from.count; ++i) {
            const double dx = std::max(std::abs(x[i] - box.x) - box.half_x, 0.0);
            const double dy = std::max(std::abs(y[i] - box.y) - box.half_y, 0.0);
            // `upper` is above the terms that were rounded.
            if (dx * dx + dy * dy - kRounding * upper[i] > squared_radius) lower[i] = kInfinity;
        }
    }

    Buffer<double> lower_, upper_;
    Buffer<float> rough_;
};

}  // namespace lithostream::gridding
