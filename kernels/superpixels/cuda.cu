// SLIC superpixels on a GPU; the algorithm in plain words is reference.py, whose labels these are to the bit.
// All sums are of integers, joins lead to the lowest member, and choices are minima, so no order of threads
// shows.
#include "superpixels/gpu_forest.h"
#include "superpixels/gpu_pieces.h"
#include "superpixels/gpu_tile.h"

using namespace lithostream::superpixels;

namespace {

constexpr int kSums = 3 + kChannels;    // of a cluster: count, colours, y, x
constexpr int kMasses = 1 + kChannels;  // of a piece: count, colours
constexpr int kSide = kWarp;            // of a tile in which pieces are joined first, as SIDE in cuda.py
constexpr int kJoinThreads = 256;       // as JOIN_THREADS in cuda.py

__device__ int thread_index() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

// Where block number `blockIdx.x` begins, of tiles side by side.
__device__ int tile_x(int width, int wide) {
    return static_cast<int>(blockIdx.x) % ((width + wide - 1) / wide) * wide;
}
__device__ int tile_row(int width, int wide, int high) {
    return static_cast<int>(blockIdx.x) / ((width + wide - 1) / wide) * high;
}

}  // namespace

// found holds height, width, 0, 0, 0 before; top, left, bottom, right and pixels of the mask after.
extern "C" __global__ void extent(const unsigned char* mask, int size, int width, int* found) {
    __shared__ int all[5];
    if (threadIdx.x < 5) all[threadIdx.x] = threadIdx.x < 2 ? size : 0;
    __syncthreads();
    int top = size, left = size, bottom = 0, right = 0, count = 0;
    for (int i = thread_index(); i < size; i += static_cast<int>(gridDim.x * blockDim.x)) {
        if (!mask[i]) continue;
        const int y = i / width, x = i % width;
        top = min(top, y), left = min(left, x), bottom = max(bottom, y + 1), right = max(right, x + 1),
        ++count;
    }
    if (count) {
        atomicMin(&all[0], top), atomicMin(&all[1], left), atomicMax(&all[2], bottom),
            atomicMax(&all[3], right);
        atomicAdd(&all[4], count);
    }
    __syncthreads();
    if (threadIdx.x == 0 && all[4]) {
        atomicMin(&found[0], all[0]), atomicMin(&found[1], all[1]);
        atomicMax(&found[2], all[2]), atomicMax(&found[3], all[3]), atomicAdd(&found[4], all[4]);
    }
}

// Add the pixels of every `stride`-th row from `first` to their nearest clusters, or to their cells as seeds.
// Where not `masked`, `mask` is any array and not read.
extern "C" __global__ void __launch_bounds__(kThreads)
    collect(const unsigned char* image, const unsigned char* mask, int masked, int channels, int pitch,
            int height, int width, int rows, int cols, int weight, int unit, int first, int stride,
            int seeding, const Centre* centres, unsigned long long* sums) {
    __shared__ Tile tile;
    __shared__ Tally<kSums> tally;
    const Box box = {pitch, height, width, rows, cols, weight, unit};
    const int x0 = tile_x(width, kWide), y0 = first + tile_row(width, kWide, kHigh) * stride;
    const int column = threadIdx.x % kWide, row = threadIdx.x / kWide * kRun, x = x0 + column;
    const int base[kSums] = {0, 0, 0, 0, 0, y0, x0};
    tally.clear();
    tile.lay(box, y0, x0, stride);
    if (!seeding) tile.load(box, y0, x0, centres);

    unsigned colours[kRun];
    bool inside[kRun];
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
        const int y = y0 + (row + r) * stride;
        inside[r] = x < width && y < height && (!masked || mask[box.at(y, x)]);
        colours[r] = inside[r] ? colours_at(image, box.at(y, x), channels) : 0;
    }
    Sums<kSums> own;
    own.clear();
    int cluster = -1;
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
        if (!inside[r]) continue;
        const int here = seeding ? tile.row[row + r] * cols + tile.col[column]
                                 : tile.nearest(box, colours[r], row + r, column);
        if (here != cluster) {
            tally.add(cluster, own, base, sums);
            own.clear(), cluster = here;
        }
        own.count(colours[r]);
        own.words[kSums - 2] += (row + r) * stride, own.words[kSums - 1] += column;
    }
    tally.add(cluster, own, base, sums);
    tally.pour(base, sums);
}

// Move each centre to the mean of its pixels, as seeds only those without one; the sums begin anew.
extern "C" __global__ void move(int count, int weight, int unit, int seeding, unsigned long long* sums,
                                Centre* centres) {
    const int i = thread_index();
    if (i >= count) return;
    unsigned long long* own = sums + static_cast<long long>(i) * kSums;
    const unsigned long long pixels = own[0];
    if (pixels > 0 && (!seeding || centres[i].colour[0] == kDead)) {
        const Box box = {0, 0, 0, 0, 0, weight, unit};
        Centre centre;
        centre.y = box.place(static_cast<long long>(rounded_mean(own[kSums - 2], pixels, kFixed)));
        centre.x = box.place(static_cast<long long>(rounded_mean(own[kSums - 1], pixels, kFixed)));
        for (int c = 0; c < kChannels; ++c)
            centre.colour[c] = static_cast<unsigned short>(rounded_mean(own[1 + c], pixels, unit));
        centres[i] = centre;
    }
    for (int w = 0; w < kSums; ++w) own[w] = 0;
}

// Write the nearest cluster of each pixel, -1 outside the mask.
extern "C" __global__ void __launch_bounds__(kThreads)
    assign(const unsigned char* image, const unsigned char* mask, int masked, int channels, int pitch,
           int height, int width, int rows, int cols, int weight, int unit, const Centre* centres,
           int* clusters) {
    __shared__ Tile tile;
    const Box box = {pitch, height, width, rows, cols, weight, unit};
    const int x0 = tile_x(width, kWide), y0 = tile_row(width, kWide, kHigh);
    const int column = threadIdx.x % kWide, row = threadIdx.x / kWide * kRun, x = x0 + column;
    tile.lay(box, y0, x0, 1);
    tile.load(box, y0, x0, centres);
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
        const int y = y0 + row + r;
        if (x >= width || y >= height) continue;
        const bool inside = !masked || mask[box.at(y, x)];
        const unsigned colours = inside ? colours_at(image, box.at(y, x), channels) : 0;
        clusters[box.at(y, x)] = inside ? tile.nearest(box, colours, row + r, column) : -1;
    }
}

// Join the pixels of each tile that are connected within it; a warp takes a row.
extern "C" __global__ void __launch_bounds__(kJoinThreads)
    connect_tiles(const int* clusters, int pitch, int height, int width, int* parent) {
    __shared__ int value[kSide * kSide], local[kSide * kSide];
    const int x0 = tile_x(width, kSide), y0 = tile_row(width, kSide, kSide), lane = threadIdx.x % kWarp,
              x = x0 + lane;
    for (int t = threadIdx.x; t < kSide * kSide; t += kJoinThreads) {
        const int y = y0 + t / kSide;
        value[t] = x < width && y < height ? settled(clusters, pitch, height, width, y, x) : -1;
        const int left = __shfl_up_sync(~0u, value[t], 1);
        const unsigned starts = __ballot_sync(~0u, lane == 0 || left != value[t]);
        local[t] = t - lane + 31 - __clz(static_cast<int>(starts & ((2u << lane) - 1)));
    }
    __syncthreads();
    for (int t = threadIdx.x + kSide; t < kSide * kSide; t += kJoinThreads) {
        const int up = t - kSide;
        const bool joined =
            lane > 0 && value[t - 1] == value[t] && value[up - 1] == value[t];  // by the left one
        if (value[t] >= 0 && value[up] == value[t] && !joined) join(local, t, up);
    }
    __syncthreads();
    for (int t = threadIdx.x; t < kSide * kSide; t += kJoinThreads) {
        const int y = y0 + t / kSide;
        if (x >= width || y >= height) continue;
        const int root = root_of(local, t);
        parent[y * width + x] = value[t] < 0 ? kOutside : (y0 + root / kSide) * width + x0 + root % kSide;
    }
}

// Join the pixels on both sides of the borders of tiles: first those that run down, then those across.
extern "C" __global__ void connect_borders(const int* clusters, int pitch, int height, int width,
                                           int* parent) {
    const int i = thread_index(), down = (width - 1) / kSide * height, across = (height - 1) / kSide * width;
    if (i >= down + across) return;
    const int y = i < down ? i % height : (1 + (i - down) / width) * kSide;
    const int x = i < down ? (1 + i / height) * kSide : (i - down) % width;
    const int near_y = i < down ? y : y - 1, near_x = i < down ? x - 1 : x;
    const int here = settled(clusters, pitch, height, width, y, x);
    if (here >= 0 && here == settled(clusters, pitch, height, width, near_y, near_x))
        join(parent, y * width + x, near_y * width + near_x);
}

// Let every member point to its root.
extern "C" __global__ void flatten(int count, int* parent) {
    const int i = thread_index();
    if (i < count && parent[i] != kOutside) parent[i] = root_of(parent, i);
}

// Roots of each chunk.
extern "C" __global__ void count_roots(const int* parent, int count, int chunks, int* roots) {
    const int chunk = thread_index() / kWarp, lane = threadIdx.x % kWarp;
    int total = 0;
    for (int i = chunk * kChunk + lane, step = 0; step < kSteps; ++step, i += kWarp)
        total += __popc(__ballot_sync(~0u, i < count && parent[i] == i));
    if (lane == 0 && chunk < chunks) roots[chunk] = total;
}

// Number the roots in ascending order; `ends` are the roots up to the end of each chunk. A root holds ~number
// after.
extern "C" __global__ void number_roots(int* parent, int count, int chunks, const int* ends) {
    const int chunk = thread_index() / kWarp, lane = threadIdx.x % kWarp;
    int number = chunk > 0 && chunk < chunks ? ends[chunk - 1] : 0;
    for (int i = chunk * kChunk + lane, step = 0; step < kSteps; ++step, i += kWarp) {
        const bool root = i < count && parent[i] == i;
        const unsigned roots = __ballot_sync(~0u, root);
        if (root) parent[i] = ~(number + __popc(roots & ((1u << lane) - 1)));
        number += __popc(roots);
    }
}

// Write the piece of each pixel, -1 outside the mask, and add the pixels to their pieces.
extern "C" __global__ void __launch_bounds__(kThreads)
    weigh(const unsigned char* image, int channels, int pitch, int height, int width, const int* parent,
          int* pieces, unsigned long long* masses) {
    __shared__ Tally<kMasses> tally;
    const int x = tile_x(width, kWide) + threadIdx.x % kWide;
    const int y0 = tile_row(width, kWide, kHigh) + threadIdx.x / kWide * kRun;
    const int base[kMasses] = {0, 0, 0, 0, 0};
    tally.clear();
    Sums<kMasses> own;
    own.clear();
    int piece = -1;
    for (int y = y0; y < min(y0 + kRun, height) && x < width; ++y) {
        const int here = number_of(parent, y * width + x), at = y * pitch + x;
        pieces[at] = here;
        if (here != piece) {
            tally.add(piece, own, base, masses);
            own.clear(), piece = here;
        }
        own.count(colours_at(image, at, channels));
    }
    tally.add(piece, own, base, masses);
    tally.pour(base, masses);
}

// Size and mean colour of each region, which is the lowest of its pieces; nobody has chosen yet.
extern "C" __global__ void describe(int count, int min_size, const int* parent,
                                    const unsigned long long* masses, Region* regions,
                                    unsigned long long* choice, int* changed) {
    const int i = thread_index();
    if (i == 0) *changed = 0;
    if (i >= count) return;
    choice[i] = kNoChoice;
    if (parent[i] != i) return;
    const unsigned long long* own = masses + static_cast<long long>(i) * kMasses;
    regions[i].small = own[0] < static_cast<unsigned long long>(min_size);
    for (int c = 0; c < kChannels; ++c)
        regions[i].mean[c] = static_cast<unsigned short>(rounded_mean(own[1 + c], own[0], kFixed));
}

// Offer to every small region its neighbours; where the pixel before met the same two pieces it has done so.
extern "C" __global__ void choose(const int* pieces, int pitch, int height, int width, const int* parent,
                                  const Region* regions, unsigned long long* choice) {
    const int i = thread_index();
    if (i >= height * width) return;
    const int y = i / width, x = i % width;
    const int* at = pieces + y * pitch + x;
    const int here = *at, left = x > 0 ? at[-1] : -1, up = y > 0 ? at[-pitch] : -1;
    if (here < 0) return;
    const int corner = x > 0 && y > 0 ? at[-pitch - 1] : -1;
    if (left >= 0 && left != here && !(up == here && corner == left))
        meet(parent, regions, here, left, choice);
    if (up >= 0 && up != here && !(left == here && corner == up)) meet(parent, regions, here, up, choice);
}

extern "C" __global__ void join_choices(int count, const unsigned long long* choice, int* parent,
                                        int* changed) {
    const int i = thread_index();
    if (i >= count || choice[i] == kNoChoice) return;
    join(parent, i, static_cast<int>(choice[i] & 0xffffffffu));
    *changed = 1;
}

// Let every piece point to the lowest of its region, and regions that were joined to another give it their
// pixels.
extern "C" __global__ void gather(int count, int* parent, unsigned long long* masses) {
    const int i = thread_index();
    if (i >= count) return;
    const int root = root_of(parent, i);
    unsigned long long* own = masses + static_cast<long long>(i) * kMasses;
    if (root == i) return;
    parent[i] = root;
    if (own[0] == 0) return;
    for (int w = 0; w < kMasses; ++w) {
        atomicAdd(&masses[static_cast<long long>(root) * kMasses + w], own[w]);
        own[w] = 0;
    }
}

// Replace the pieces by the numbers of their regions, from 1; 0 outside the mask.
extern "C" __global__ void label(const int* parent, int pitch, int height, int width, int* labels) {
    const int i = thread_index();
    if (i >= height * width) return;
    int* at = labels + i / width * pitch + i % width;
    *at = *at < 0 ? 0 : number_of(parent, *at) + 1;
}
