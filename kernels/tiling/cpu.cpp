// Tiles: each cell of a grid copied, or resampled to the size of a tile (area.h).
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <future>
#include <map>
#include <system_error>
#include <vector>

#include "native.h"
#include "tiling/area.h"

namespace nb = nanobind;

namespace {

using namespace lithostream::tiling;

using Image = nb::ndarray<const uint8_t, nb::ndim<3>, nb::device::cpu>;
using Edges = nb::ndarray<const int64_t, nb::ndim<1>, nb::device::cpu>;
using Tiles = nb::ndarray<uint8_t, nb::ndim<5>, nb::c_contig, nb::device::cpu>;

// Calls work() on up to `threads` threads, fewer where no more can be had.
template <class Work>
void on_threads(int threads, const Work& work) {
    std::vector<std::future<void>> helpers;
    try {
        for (int t = 1; t < threads; ++t) helpers.push_back(std::async(std::launch::async, work));
    } catch (const std::system_error&) {
    }
    work();
    for (auto& helper : helpers) helper.get();
}

struct Grid {
    const Image& image;
    const Edges &row_edges, &col_edges;
    int64_t columns = static_cast<int64_t>(col_edges.shape(0)) - 1;
    int64_t cells = (static_cast<int64_t>(row_edges.shape(0)) - 1) * columns;

    static int64_t length(const Edges& edges, int64_t i) { return edges(i + 1) - edges(i); }

    // Cell n, by way of `copy` where the pixels of a row are not packed.
    Cell cell(int64_t n, std::vector<uint8_t>& copy) const {
        const int64_t y = n / columns, x = n % columns;
        const int64_t height = length(row_edges, y), width = length(col_edges, x);
        const int64_t dy = image.stride(0), dx = image.stride(1), dc = image.stride(2);
        const uint8_t* corner = image.data() + row_edges(y) * dy + col_edges(x) * dx;
        if (dx == 3 && dc == 1) return {corner, dy, height, width};
        copy.resize(3 * height * width);
        uint8_t* to = copy.data();
        for (int64_t i = 0; i < height; ++i)
            for (int64_t j = 0; j < width; ++j)
                for (int64_t c = 0; c < 3; ++c) *to++ = corner[i * dy + j * dx + c * dc];
        return {copy.data(), 3 * width, height, width};
    }
};

// The axes of all lengths that occur.
template <class Weight>
std::map<int64_t, Axis<Weight>> axes(const Edges& edges, int64_t size) {
    std::map<int64_t, Axis<Weight>> found;
    for (int64_t i = 0; i + 1 < static_cast<int64_t>(edges.shape(0)); ++i)
        found.try_emplace(Grid::length(edges, i), Grid::length(edges, i), size);
    return found;
}

int64_t most_units(const Edges& edges, int64_t size) {
    int64_t most = 0;
    for (int64_t i = 0; i + 1 < static_cast<int64_t>(edges.shape(0)); ++i)
        most = std::max(most, units(Grid::length(edges, i), size));
    return most;
}

void copy_cell(const Cell& cell, uint8_t* tile) {
    for (int64_t y = 0; y < cell.height; ++y)
        std::memcpy(tile + y * 3 * cell.width, cell.pixels + y * cell.row_bytes, 3 * cell.width);
}

template <class Sum, class Real>
void fill(const Grid& grid, int64_t size, int threads, uint8_t* tiles) {
    const auto rows = axes<Sum>(grid.row_edges, size);
    const auto columns = axes<Real>(grid.col_edges, size);
    std::atomic<int64_t> next{0};
    on_threads(threads, [&] {
        std::vector<uint8_t> copy;
        Resampler<Sum, Real> resample(size);
        for (int64_t n; (n = next++) < grid.cells;) {
            const Cell cell = grid.cell(n, copy);
            uint8_t* tile = tiles + n * 3 * size * size;
            if (cell.height == size && cell.width == size)
                copy_cell(cell, tile);
            else
                resample(cell, rows.at(cell.height), columns.at(cell.width), tile);
        }
    });
}

void tiles(Image image, Edges row_edges, Edges col_edges, int threads, Tiles out) {
    const Grid grid{image, row_edges, col_edges};
    const int64_t size = out.shape(2);
    const int64_t height = most_units(row_edges, size), width = most_units(col_edges, size);
    if (height <= 257 && height * width <= 1 << 16)
        fill<uint16_t, float>(grid, size, threads, out.data());
    else if (height < 1 << 23)
        fill<int32_t, double>(grid, size, threads, out.data());
    else
        fill<double, double>(grid, size, threads, out.data());
}

}  // namespace

void register_tiles(nb::module_& m) {
    m.def("tiles", &tiles, nb::arg("image").noconvert(), nb::arg("row_edges").noconvert(),
          nb::arg("col_edges").noconvert(), nb::arg("threads"), nb::arg("out").noconvert(),
          nb::call_guard<nb::gil_scoped_release>());
}
