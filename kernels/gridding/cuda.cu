// Inverse distance weighting on a GPU: a block of threads per area of the grid names the points that its
// cells can reach, a block per tile narrows them down further and has a thread per cell. Candidates stay in
// the order of their index and sums follow it, so the bits are repeatable, and those of the CPU.
#include "gpu.h"
#include "gridding/gpu_blend.h"

using namespace lithostream::gridding;

namespace {

constexpr int kTile = 16;        // cells, as TILE in cuda.py
constexpr int kRoom = 512;       // candidates of a tile that are kept at hand
constexpr int kEveryPoint = -1;  // in place of a count: too many to name

constexpr int kBadPoint = 1, kBadValue = 2, kGap = 4;  // as in cuda.py

template <int Slots, typename Points>
__device__ void fill_cell(const Cell<Points>& cell, const Reach& reach, const Channels& channels,
                          const Target& out) {
    const Choice choice = cell.template choose<Slots>(reach);
    if (!channels.complete)
        for (int c = 0; c < channels.count; ++c) blend_known(cell, choice, channels, c, out);
    else if (channels.count == 1)
        blend<1>(cell, choice, channels, 0, out);
    else
        for (int first = 0; first < channels.count; first += kTogether)
            blend<kTogether>(cell, choice, channels, first, out);
}

// The cells of a square of the grid that starts at a multiple of its side.
__device__ Block square(long long number, int side, long long height, long long width) {
    const long long across = (width + side - 1) / side;
    const long long row = number / across * side, column = number % across * side;
    return {row, column, min(1LL * side, height - row), min(1LL * side, width - column)};
}

struct Work {
    const double* points;
    int count;
    Channels channels;
    Grid grid;
    long long height, width;
    Reach reach;
    int side, room;  // of the areas
    const int *names, *counts;
    float* out;
};

struct Stage {
    Board board;
    int names[kRoom];
    double x[kRoom], y[kRoom];
};

// A block of kTile * kTile threads per tile.
template <int Slots>
__device__ void fill_tile(const Work& work, Stage& stage) {
    const Block tile = square(blockIdx.x, kTile, work.height, work.width);
    const long long areas = (work.width + work.side - 1) / work.side;
    const long long area = tile.row / work.side * areas + tile.column / work.side;
    Named named = {work.points, nullptr, work.count};
    if (work.counts[area] != kEveryPoint)
        named.names = work.names + area * work.room, named.count = work.counts[area];
    const Box box(work.grid, tile);
    const int kept = narrow(box, named, work.reach, kRoom, stage.names, stage.board);
    for (int i = threadIdx.x; i < kept && kept <= kRoom; i += blockDim.x) {
        stage.x[i] = work.points[2LL * stage.names[i]];
        stage.y[i] = work.points[2LL * stage.names[i] + 1];
    }
    __syncthreads();

    const int own_row = threadIdx.x / kTile, own_column = threadIdx.x % kTile;
    if (own_row >= tile.rows || own_column >= tile.columns) return;
    const long long row = tile.row + own_row, column = tile.column + own_column;
    const double x = work.grid.x(column), y = work.grid.y(row);
    const Target out = {work.out + row * work.width + column, work.height * work.width};
    if (kept <= kRoom) {
        const Staged staged = {stage.x, stage.y, stage.names, kept};
        fill_cell<Slots>(Cell<Staged>{staged, x, y}, work.reach, work.channels, out);
    } else {
        fill_cell<Slots>(Cell<Named>{named, x, y}, work.reach, work.channels, out);
    }
}

}  // namespace

// Sets the bits of `found`, 0 before, that tell of bad coordinates, bad values and NaN.
extern "C" __global__ void inspect(const double* points, long long coordinates, const double* values,
                                   long long size, double largest_coordinate, double largest_value,
                                   int* found) {
    int own = 0;
    const long long first = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = first; i < coordinates; i += step)
        if (!(fabs(points[i]) <= largest_coordinate)) own |= kBadPoint;
    for (long long i = first; i < size; i += step) {
        const double value = values[i];
        own |= (fabs(value) > largest_value ? kBadValue : 0) | (value == value ? 0 : kGap);
    }
    if (own) atomicOr(found, own);
}

// A block per area of side * side cells names the points its cells can reach.
extern "C" __global__ void areas(const double* points, int count, double x0, double y0, double dx, double dy,
                                 long long height, long long width, int k, double squared_radius, int side,
                                 int room, int* names, int* counts) {
    __shared__ Board board;
    const Box box({x0, y0, dx, dy}, square(blockIdx.x, side, height, width));
    int* own = names + static_cast<long long>(blockIdx.x) * room;
    const int kept = narrow(box, {points, nullptr, count}, {k, squared_radius}, room, own, board);
    if (threadIdx.x == 0) counts[blockIdx.x] = kept <= room ? kept : kEveryPoint;
}

// Fills the tiles, fast where k is 12 at most.
extern "C" __global__ void __launch_bounds__(kTile* kTile, 3)
    cells_12(const double* points, int count, double x0, double y0, double dx, double dy, long long height,
             long long width, int k, double squared_radius, int side, int room, const int* names,
             const int* counts, const double* values, int channels, int complete, double power, float* out) {
    __shared__ Stage stage;
    const Channels all = {values, channels, complete != 0, power};
    fill_tile<12>({points,
                   count,
                   all,
                   {x0, y0, dx, dy},
                   height,
                   width,
                   {k, squared_radius},
                   side,
                   room,
                   names,
                   counts,
                   out},
                  stage);
}

// The same for any k, fast to 32.
extern "C" __global__ void __launch_bounds__(kTile* kTile, 3)
    cells_32(const double* points, int count, double x0, double y0, double dx, double dy, long long height,
             long long width, int k, double squared_radius, int side, int room, const int* names,
             const int* counts, const double* values, int channels, int complete, double power, float* out) {
    __shared__ Stage stage;
    const Channels all = {values, channels, complete != 0, power};
    fill_tile<32>({points,
                   count,
                   all,
                   {x0, y0, dx, dy},
                   height,
                   width,
                   {k, squared_radius},
                   side,
                   room,
                   names,
                   counts,
                   out},
                  stage);
}
