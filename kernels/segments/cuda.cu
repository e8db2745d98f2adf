// Statistics of segments on a GPU: the range of the labels and their boxes by integer atomics, then a few
// blocks per segment, which walk its box. Which thread adds which value depends on the box alone, so the bits
// are repeatable.
#include "segments/sums.h"

using namespace lithostream::segments;

namespace {

constexpr int kThreads = 256;  // as THREADS in cuda.py
constexpr int kAhead = 4;      // pixels a thread asks for before it uses the first

// The plain read spares most atomics: an outdated value only lets one more through.
__device__ void lower(int* at, int value) {
    if (value < *static_cast<volatile int*>(at)) atomicMin(at, value);
}

__device__ void raise(int* at, int value) {
    if (value > *static_cast<volatile int*>(at)) atomicMax(at, value);
}

__device__ bool finite(float value) { return value - value == 0; }

// The pixels of a box in reading order, `step` at a time.
struct Walk {
    int width, height, step_x = 0, step_y = 0, x = 0, y = 0;  // a label without pixels has nothing inside

    __device__ Walk(const int* box, long long first, long long step)
        : width(box[3] - box[1]), height(width > 0 ? box[2] - box[0] : 0) {
        if (height == 0) return;
        step_x = static_cast<int>(step % width), step_y = static_cast<int>(step / width);
        x = static_cast<int>(first % width), y = static_cast<int>(first / width);
    }

    __device__ bool inside() const { return y < height; }

    __device__ void advance() {
        x += step_x, y += step_y;
        if (x >= width) x -= width, ++y;
    }
};

struct Pixels {
    unsigned long long count, sum_y, sum_x;
};

// Joins the sums that lie `lanes` apart, those of one channel, into the first of them.
__device__ void join(Sums* sums, int lanes, int slots) {
    const int slot = threadIdx.x / lanes;
    int half = 1;
    while (2 * half < slots) half *= 2;
    for (; half > 0; half /= 2) {
        __syncthreads();
        if (slot < half && slot + half < slots) sums[threadIdx.x].merge(sums[threadIdx.x + half * lanes]);
    }
}

// Block (segment, split, group of channels): thread t adds channel t % lanes of every slots-th pixel, so that
// neighbours read neighbouring values.
template <typename T>
__device__ void gather(const int* labels, const T* channels, int width, int channel_count, int lanes,
                       const int* box, Pixels* pixels, Sums* partial) {
    __shared__ Sums all[kThreads];
    __shared__ Pixels seen;
    const long long segment = blockIdx.x, split = blockIdx.y;
    const int slots = blockDim.x / lanes, lane = threadIdx.x % lanes, channel = blockIdx.z * lanes + lane;
    const bool reads = channel < channel_count, counts = channel == 0;
    if (threadIdx.x == 0) seen = {0, 0, 0};
    __syncthreads();

    box += 4 * segment;
    Pixels own = {0, 0, 0};
    Sums sums = {0, 0, 0, 0};
    const long long first = split * slots + threadIdx.x / lanes,
                    step = static_cast<long long>(gridDim.y) * slots;
    for (Walk walk(box, first, step); walk.inside();) {
        long long at[kAhead];
        int found[kAhead];
        T values[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i, walk.advance()) {
            const int y = box[0] + walk.y, x = box[1] + walk.x;
            at[i] = static_cast<long long>(y) * width + x;
            found[i] = walk.inside() && labels[at[i]] == segment + 1;
            if (found[i] && counts) ++own.count, own.sum_y += y, own.sum_x += x;
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
            if (found[i] && reads) values[i] = channels[at[i] * channel_count + channel];
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
            if (found[i] && reads && finite(values[i])) sums.add(values[i]);
    }

    all[threadIdx.x] = sums;
    if (own.count) {
        atomicAdd(&seen.count, own.count);
        atomicAdd(&seen.sum_y, own.sum_y);
        atomicAdd(&seen.sum_x, own.sum_x);
    }
    join(all, lanes, slots);
    __syncthreads();
    if (threadIdx.x < lanes && reads)
        partial[(segment * gridDim.y + split) * channel_count + channel] = all[threadIdx.x];
    if (threadIdx.x == 0 && seen.count) {
        atomicAdd(&pixels[segment].count, seen.count);
        atomicAdd(&pixels[segment].sum_y, seen.sum_y);
        atomicAdd(&pixels[segment].sum_x, seen.sum_x);
    }
}

}  // namespace

// range holds 0, 0 before; lowest and highest label with 0 among them after.
extern "C" __global__ void label_range(const int* labels, long long size, int* range) {
    int lowest = 0, highest = 0;
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < size; i += step) {
        const int label = labels[i];
        lowest = min(lowest, label), highest = max(highest, label);
    }
    for (int by = 16; by > 0; by /= 2) {
        lowest = min(lowest, __shfl_down_sync(~0u, lowest, by));
        highest = max(highest, __shfl_down_sync(~0u, highest, by));
    }
    if (threadIdx.x % 32 == 0) lower(&range[0], lowest), raise(&range[1], highest);
}

// Each box holds INT_MAX, INT_MAX, 0, 0 before. Only the ends of runs can widen one.
extern "C" __global__ void boxes(const int* labels, int width, int* box) {
    const int tiles = (width + blockDim.x - 1) / blockDim.x;
    const int y = blockIdx.x / tiles, x = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (x >= width) return;
    const int* row = labels + static_cast<long long>(y) * width;
    const int label = row[x];
    if (label == 0) return;
    int* own = box + 4 * (label - 1LL);
    if (x == 0 || row[x - 1] != label) lower(&own[0], y), lower(&own[1], x), raise(&own[2], y + 1);
    if (x == width - 1 || row[x + 1] != label) raise(&own[3], x + 1);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gather_float(const int* labels, const float* channels, int width, int channel_count, int lanes,
                 const int* box, Pixels* pixels, Sums* partial) {
    gather(labels, channels, width, channel_count, lanes, box, pixels, partial);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gather_byte(const int* labels, const unsigned char* channels, int width, int channel_count, int lanes,
                const int* box, Pixels* pixels, Sums* partial) {
    gather(labels, channels, width, channel_count, lanes, box, pixels, partial);
}

// A thread per segment and channel joins the splits in their order; that of channel 0 writes the rest.
extern "C" __global__ void finish(int segments, int channel_count, int splits, const Pixels* pixels,
                                  const Sums* partial, long long* count, double* mean, double* variance,
                                  int* box, double* centroid) {
    const int columns = max(1, channel_count);
    const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    const long long segment = i / columns;
    const int channel = static_cast<int>(i % columns);
    if (segment >= segments) return;
    const double nan = __longlong_as_double(0x7ff8000000000000LL);
    if (channel == 0) {
        const Pixels& all = pixels[segment];
        count[segment] = static_cast<long long>(all.count);
        for (int corner = 0; corner < 4 && all.count == 0; ++corner) box[4 * segment + corner] = 0;
        centroid[2 * segment] = all.count ? static_cast<double>(all.sum_y) / all.count : nan;
        centroid[2 * segment + 1] = all.count ? static_cast<double>(all.sum_x) / all.count : nan;
    }
    if (channel >= channel_count) return;
    Sums all = {0, 0, 0, 0};
    for (long long split = segment * splits; split < (segment + 1) * splits; ++split)
        all.merge(partial[split * channel_count + channel]);
    mean[i] = all.count ? all.mean() : nan;
    variance[i] = all.count ? all.variance() : nan;
}
