// A rectangle of pixels of one block: its nine candidate centres per cell, and sums by region, in shared
// memory.
#pragma once

namespace lithostream::superpixels {

constexpr int kFixed = 16;  // as FIXED and WEIGHT_SHIFT of plan.py
constexpr int kWeightShift = 20;
constexpr int kChannels = 4;                                // those an image lacks are 0
constexpr int kWide = 32;                                   // columns of a tile, one a lane
constexpr int kHigh = 16;                                   // rows of a tile, or every stride-th of more
constexpr int kThreads = 128;                               // as THREADS in cuda.py
constexpr int kRun = kWide * kHigh / kThreads;              // rows of a thread, one below the other
constexpr int kDead = 0xffff;                               // colour of the centre of an empty cell
constexpr unsigned kFar = 1 << 24;                          // place in which no centre is near
constexpr unsigned kSlots = 64, kSlotBits = 6, kTries = 8;  // of a table of sums

// Places are distances, of which only differences matter: 32 bits of each do.
struct alignas(16) Centre {
    unsigned y, x;
    unsigned short colour[kChannels];
};

// The box of the mask within the whole image, whose rows lie `pitch` apart, and the grid over it.
struct Box {
    int pitch, height, width, rows, cols, weight, unit;

    __device__ int at(int y, int x) const { return y * pitch + x; }
    __device__ unsigned place(long long fixed) const {
        return static_cast<unsigned>(fixed * weight >> kWeightShift);
    }
    __device__ unsigned place_of(int at) const { return place(static_cast<long long>(at) * kFixed); }
};

// Up to four channels of a pixel, 8 bits each.
__device__ inline unsigned colours_at(const unsigned char* image, int at, int channels) {
    unsigned colours = 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
        if (c < channels) colours |= static_cast<unsigned>(image[at * channels + c]) << 8 * c;
    return colours;
}

__device__ inline int cell_at(int at, int cells, int size) {
    return static_cast<int>(static_cast<long long>(at) * cells / size);
}

// Columns x0.. and every `stride`-th row from y0. A cell is 1 px wide or more, and at least 4 strides high
// where rows are left out, so no more than kHigh rows of cells are met.
struct Tile {
    int col[kWide], row[kHigh];      // cell
    int across[kWide], down[kHigh];  // place from the first
    Centre centres[(kWide + 2) * (kHigh + 2)];

    // Find the cells of columns and rows; all threads.
    __device__ void lay(const Box& box, int y0, int x0, int stride) {
        const int t = threadIdx.x;
        if (t < kWide) {
            const int x = min(x0 + t, box.width - 1);
            col[t] = cell_at(x, box.cols, box.width);
            across[t] = static_cast<int>(box.place_of(x) - box.place_of(x0));
        }
        if (t < kHigh) {
            const int y = min(y0 + t * stride, box.height - 1);
            row[t] = cell_at(y, box.rows, box.height);
            down[t] = static_cast<int>(box.place_of(y) - box.place_of(y0));
        }
        __syncthreads();
    }

    // Bring the centres of all cells and of those around them; all threads, after `lay`.
    __device__ void load(const Box& box, int y0, int x0, const Centre* all) {
        const int wide = pitch(), count = wide * (row[kHigh - 1] - row[0] + 3);
        const unsigned oy = box.place_of(y0), ox = box.place_of(x0);
        for (int s = threadIdx.x; s < count; s += kThreads) {
            const int cy = row[0] - 1 + s / wide, cx = col[0] - 1 + s % wide;
            const bool exists = cy >= 0 && cy < box.rows && cx >= 0 && cx < box.cols;
            Centre centre = {kFar, 0, {0, 0, 0, 0}};
            if (exists && all[cy * box.cols + cx].colour[0] != kDead) {
                centre = all[cy * box.cols + cx];
                centre.y -= oy, centre.x -= ox;
            }
            centres[s] = centre;
        }
        __syncthreads();
    }

    __device__ int pitch() const { return col[kWide - 1] - col[0] + 3; }

    // Nearest of the nine centres around the cell of row r, column c: its own wins a tie, then the lower
    // number.
    __device__ int nearest(const Box& box, unsigned colours, int r, int c) const {
        int colour[kChannels];
#pragma unroll
        for (int i = 0; i < kChannels; ++i) colour[i] = static_cast<int>(colours >> 8 * i & 255) * box.unit;
        const int wide = pitch(), y = down[r], x = across[c];
        const Centre* own = centres + (row[r] - row[0] + 1) * wide + col[c] - col[0] + 1;
        int best = 0x7fffffff;  // distance, then rank
#pragma unroll
        for (int j = 0; j < 9; ++j) {
            const Centre centre = own[(j / 3 - 1) * wide + j % 3 - 1];
            int distance = abs(y - static_cast<int>(centre.y)) + abs(x - static_cast<int>(centre.x));
#pragma unroll
            for (int i = 0; i < kChannels; ++i) distance += abs(colour[i] - centre.colour[i]);
            best = min(best, distance << 4 | (j == 4 ? 0 : j + 1));
        }
        const int rank = best & 15, j = rank == 0 ? 4 : rank - 1;
        return (row[r] + j / 3 - 1) * box.cols + col[c] + j % 3 - 1;
    }
};

// Count and sums over the pixels of a thread.
template <int N>
struct Sums {
    unsigned words[N];  // count, four colours, then whatever comes from the first pixel of the tile

    __device__ void clear() {
#pragma unroll
        for (int w = 0; w < N; ++w) words[w] = 0;
    }

    __device__ void count(unsigned colours) {
        ++words[0];
#pragma unroll
        for (int c = 0; c < kChannels; ++c) words[1 + c] += colours >> 8 * c & 255;
    }
};

// Sums of a block by region: a small hash table, beside which what finds no place in it goes to memory at
// once.
template <int N>
struct Tally {
    int region[kSlots];
    unsigned words[kSlots][N];

    __device__ void clear() {  // all threads
        for (unsigned i = threadIdx.x; i < kSlots; i += kThreads) region[i] = -1;
        for (unsigned i = threadIdx.x; i < kSlots * N; i += kThreads) words[i / N][i % N] = 0;
        __syncthreads();
    }

    // `base` is what each word lacks per pixel.
    __device__ void add(int to, const Sums<N>& sums, const int* base, unsigned long long* all) {
        if (to < 0) return;
        const unsigned first = static_cast<unsigned>(to) * 2654435761u >> (32 - kSlotBits);
        for (unsigned i = 0; i < kTries; ++i) {
            const unsigned slot = (first + i) % kSlots;
            int held = *static_cast<volatile int*>(&region[slot]);
            if (held == -1) held = atomicCAS(&region[slot], -1, to);
            if (held != -1 && held != to) continue;
            for (int w = 0; w < N; ++w) atomicAdd(&words[slot][w], sums.words[w]);
            return;
        }
        for (int w = 0; w < N; ++w) send(to, w, sums.words[w], sums.words[0], base, all);
    }

    __device__ void pour(const int* base, unsigned long long* all) {  // all threads
        __syncthreads();
        for (unsigned i = threadIdx.x; i < kSlots * N; i += kThreads)
            if (region[i / N] >= 0)
                send(region[i / N], i % N, words[i / N][i % N], words[i / N][0], base, all);
    }

  private:
    __device__ static void send(int to, int word, unsigned sum, unsigned count, const int* base,
                                unsigned long long* all) {
        const unsigned long long whole = sum + static_cast<unsigned long long>(count) * base[word];
        if (whole != 0) atomicAdd(&all[static_cast<long long>(to) * N + word], whole);
    }
};

}  // namespace lithostream::superpixels
