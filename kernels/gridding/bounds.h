// Cells of a grid, and how far a point is from those of a block. Plain C++ for host and device alike.
#pragma once

#if !defined(__CUDACC__)
#include <cmath>
#endif

#include "both.h"

namespace lithostream::gridding {

// More than the rounding of any sum of squares below, relative to its terms.
constexpr double kRounding = 1e-14;

LITHOSTREAM_BOTH inline double larger(double a, double b) { return a < b ? b : a; }

struct Grid {
    double x0, y0, dx, dy;

    LITHOSTREAM_BOTH double x(long long column) const { return x0 + dx * static_cast<double>(column); }
    LITHOSTREAM_BOTH double y(long long row) const { return y0 + dy * static_cast<double>(row); }
};

// Cells [row, row + rows) x [column, column + columns).
struct Block {
    long long row, column, rows, columns;
};

// A box around the centres of the cells of a block.
struct Box {
    double x, y, half_x, half_y;

    LITHOSTREAM_BOTH Box(const Grid& grid, const Block& b)
        : Box(grid.x(b.column), grid.x(b.column + b.columns - 1), grid.y(b.row), grid.y(b.row + b.rows - 1)) {
    }

  private:
    LITHOSTREAM_BOTH Box(double x0, double x1, double y0, double y1)
        : x(x0 + (x1 - x0) / 2),
          y(y0 + (y1 - y0) / 2),
          half_x(larger(fabs(x0 - x), fabs(x1 - x))),
          half_y(larger(fabs(y0 - y), fabs(y1 - y))) {}
};

// With c the middle of the box and q a cell, |p - q|^2 = |p - c|^2 - 2 (p - c).(q - c) + |q - c|^2, and the
// last term is the same for every point p. The others lie between these ends over the box, so a point whose
// lower end is above the upper ends of k others is farther than those from every cell.
struct Ends {
    double lower, upper;

    LITHOSTREAM_BOTH Ends(const Box& box, double x, double y) {
        const double corner = box.half_x * box.half_x + box.half_y * box.half_y;
        const double dx = fabs(x - box.x), dy = fabs(y - box.y);
        const double middle = dx * dx + dy * dy, swing = 2 * (dx * box.half_x + dy * box.half_y);
        const double slack = kRounding * (middle + swing + corner);
        lower = middle - swing - slack;
        upper = middle + swing + slack;
    }
};

// Whether a point is farther than the radius from every cell; `upper` is its upper end.
LITHOSTREAM_BOTH inline bool beyond(const Box& box, double x, double y, double upper, double squared_radius) {
    const double dx = larger(fabs(x - box.x) - box.half_x, 0.0);
    const double dy = larger(fabs(y - box.y) - box.half_y, 0.0);
    return dx * dx + dy * dy - kRounding * upper > squared_radius;  // `upper` is above what was rounded
}

}  // namespace lithostream::gridding
