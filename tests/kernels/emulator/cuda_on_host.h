// CUDA C++ on the host, for tests: every thread of a block is a fiber, barriers and warp operations switch
// fibers, atomics are plain because one fiber runs at a time. Shared memory is poisoned before each block,
// blocks run in a chosen order, and a barrier that not every thread reaches ends the launch with an error
// instead of a hang.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __CUDA_ON_HOST__ 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ __attribute__((section("cuda_shared"))) static
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::dynamic_shared.data())

extern "C" char __start_cuda_shared[] __attribute__((weak));
extern "C" char __stop_cuda_shared[] __attribute__((weak));

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint3 {
    unsigned x = 0, y = 0, z = 0;
};
static dim3 gridDim, blockDim;
static uint3 blockIdx, threadIdx;
constexpr int warpSize = 32;

#define VECTOR_TYPES(base, name)                                                \
    struct name##2 { base x, y; };                                              \
    struct name##3 { base x, y, z; };                                           \
    struct alignas(4 * sizeof(base)) name##4 { base x, y, z, w; };              \
    inline name##2 make_##name##2(base x, base y) { return {x, y}; }            \
    inline name##3 make_##name##3(base x, base y, base z) { return {x, y, z}; } \
    inline name##4 make_##name##4(base x, base y, base z, base w) { return {x, y, z, w}; }
VECTOR_TYPES(unsigned char, uchar)
VECTOR_TYPES(short, short)
VECTOR_TYPES(unsigned short, ushort)
VECTOR_TYPES(int, int)
VECTOR_TYPES(float, float)
VECTOR_TYPES(double, double)
struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulator {

constexpr size_t kStackBytes = 256 << 10;
enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    State state = State::ready;
    unsigned mask = 0;     // lanes a warp operation waits for
    uint64_t offered = 0;  // what this lane brings to it
    uint64_t vote = 0;     // what this thread brings to a block barrier
};

static std::vector<Fiber> fibers;
static std::vector<uint64_t> exchanged;  // per thread: what it offered when its warp operation was released
static std::vector<char> dynamic_shared;
static ucontext_t scheduler;
static size_t running, threads;
static uint64_t votes_sum, votes_count;
static std::function<void()> body;
static std::string failure;

inline void enter() {
    try {
        body();
    } catch (const std::exception& error) {  // may not leave the fiber's own stack
        failure = error.what();
    }
    fibers[running].state = State::done;
    swapcontext(&fibers[running].context, &scheduler);
}

inline void wait(State state) {
    fibers[running].state = state;
    swapcontext(&fibers[running].context, &scheduler);
}

inline void block_barrier(uint64_t vote) {
    fibers[running].vote = vote;
    wait(State::at_block_barrier);
}

inline size_t warp_start() { return running / warpSize * warpSize; }

// Offers a value and returns once every lane of the mask has.
inline void warp_barrier(unsigned mask, uint64_t value) {
    const size_t lane = running % warpSize;
    if (!(mask >> lane & 1)) throw std::runtime_error("a lane outside its own mask called a warp operation");
    fibers[running].mask = mask, fibers[running].offered = value;
    wait(State::at_warp_barrier);
}

inline bool release_warps() {
    bool any = false;
    for (size_t first = 0; first < threads; first += warpSize) {
        const size_t lanes = std::min<size_t>(warpSize, threads - first);
        for (size_t lane = 0; lane < lanes; ++lane) {
            Fiber& waiting = fibers[first + lane];
            if (waiting.state != State::at_warp_barrier) continue;
            const unsigned mask = waiting.mask;
            bool complete = true;
            for (size_t other = 0; other < lanes; ++other) {
                const Fiber& fiber = fibers[first + other];
                if (mask >> other & 1 && fiber.state != State::done)
                    complete &= fiber.state == State::at_warp_barrier && fiber.mask == mask;
            }
            if (!complete) continue;
            for (size_t other = 0; other < lanes; ++other)
                if (mask >> other & 1 && fibers[first + other].state == State::at_warp_barrier) {
                    exchanged[first + other] = fibers[first + other].offered;
                    fibers[first + other].state = State::ready;
                }
            any = true;
        }
    }
    return any;
}

inline bool release_block() {
    uint64_t sum = 0, count = 0;
    for (size_t t = 0; t < threads; ++t) {
        if (fibers[t].state == State::done) continue;
        if (fibers[t].state != State::at_block_barrier) return false;
        sum += fibers[t].vote, ++count;
    }
    if (count == 0) return false;
    votes_sum = sum, votes_count = count;
    for (size_t t = 0; t < threads; ++t)
        if (fibers[t].state == State::at_block_barrier) fibers[t].state = State::ready;
    return true;
}

inline void run_block(uint64_t order) {
    if (__start_cuda_shared) std::memset(__start_cuda_shared, 0xCD, __stop_cuda_shared - __start_cuda_shared);
    std::fill(dynamic_shared.begin(), dynamic_shared.end(), char(0xCD));
    for (size_t t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, reinterpret_cast<void (*)()>(&enter), 0);
        fiber.state = State::ready;
    }
    for (;;) {
        bool progress = false, live = false;
        for (size_t n = 0; n < threads; ++n) {
            const size_t t = order % 2 ? threads - 1 - n : n;
            if (fibers[t].state == State::ready) {
                running = t, progress = true;
                threadIdx.x = t % blockDim.x;
                threadIdx.y = t / blockDim.x % blockDim.y;
                threadIdx.z = t / blockDim.x / blockDim.y;
                swapcontext(&scheduler, &fibers[t].context);
                if (!failure.empty()) throw std::runtime_error(std::exchange(failure, {}));
            }
            live |= fibers[t].state != State::done;
        }
        if (!live) return;
        if (!release_warps() && !release_block() && !progress)
            throw std::runtime_error("a barrier is not reached by every thread of its block or mask");
    }
}

template <typename P>
void check_argument(size_t index, char kind, size_t bytes) {
    const char want = std::is_pointer_v<P> ? 'p' : std::is_floating_point_v<P> ? 'f' : 'i';
    if (kind != want || bytes != sizeof(P))
        throw std::runtime_error("argument " + std::to_string(index) + ": expected " + want +
                                 std::to_string(8 * sizeof(P)) + ", got " + kind + std::to_string(8 * bytes));
}

// order 0: blocks and threads forwards, 1: backwards, above: blocks shuffled by that seed.
template <typename... P, size_t... I>
void launch(void (*kernel)(P...), const unsigned* shape, size_t shared_bytes, uint64_t order,
            void** arguments, const char* kinds, const size_t* bytes, size_t count,
            std::index_sequence<I...>) {
    if (count != sizeof...(P))
        throw std::runtime_error("expected " + std::to_string(sizeof...(P)) + " arguments, got " +
                                 std::to_string(count));
    (check_argument<P>(I, kinds[I], bytes[I]), ...);
    gridDim = {shape[0], shape[1], shape[2]}, blockDim = {shape[3], shape[4], shape[5]};
    threads = size_t{blockDim.x} * blockDim.y * blockDim.z;
    const size_t blocks = size_t{gridDim.x} * gridDim.y * gridDim.z;
    if (threads == 0 || threads > 1024 || blocks == 0 || gridDim.y > 65535 || gridDim.z > 65535)
        throw std::runtime_error("no GPU launches a grid of this shape");
    while (fibers.size() < threads) fibers.emplace_back();
    exchanged.assign(threads, 0);
    dynamic_shared.assign(shared_bytes, 0);
    std::vector<size_t> turn(blocks);
    for (size_t b = 0; b < blocks; ++b) turn[b] = order == 1 ? blocks - 1 - b : b;
    if (order > 1) std::shuffle(turn.begin(), turn.end(), std::mt19937_64(order));
    body = [=] { kernel(*static_cast<std::remove_reference_t<P>*>(arguments[I])...); };
    for (const size_t b : turn) {
        blockIdx.x = b % gridDim.x;
        blockIdx.y = b / gridDim.x % gridDim.y;
        blockIdx.z = b / gridDim.x / gridDim.y;
        run_block(order);
    }
}

template <typename... P>
const char* emulate(void (*kernel)(P...), const unsigned* shape, size_t shared_bytes, uint64_t order,
                    void** arguments, const char* kinds, const size_t* bytes, size_t count) {
    static std::string told;
    try {
        launch(kernel, shape, shared_bytes, order, arguments, kinds, bytes, count,
               std::index_sequence_for<P...>());
        return nullptr;
    } catch (const std::exception& error) {
        told = error.what();
        return told.c_str();
    }
}

template <typename T>
uint64_t pack(T value) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <typename T>
T unpack(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

// The value of another lane of the segment of `width` lanes; a source outside it reads its own.
template <typename T>
T shuffle(unsigned mask, T value, int source, int width) {
    warp_barrier(mask, pack(value));
    const int lane = int(running % warpSize), base = lane / width * width;
    if (source < base || source >= base + width) source = lane;
    return unpack<T>(exchanged[warp_start() + source]);
}

template <typename T, typename Merge>
T reduce(unsigned mask, T value, Merge merge) {
    warp_barrier(mask, pack(value));
    T total = value;
    bool first = true;
    for (int lane = 0; lane < warpSize; ++lane)
        if (mask >> lane & 1 && warp_start() + lane < threads) {
            const T one = unpack<T>(exchanged[warp_start() + lane]);
            total = first ? one : merge(total, one), first = false;
        }
    return total;
}

template <typename T, typename F>
T exchange(T* place, F change) {
    const T old = *place;
    *place = change(old);
    return old;
}

}  // namespace emulator

inline void __syncthreads() { emulator::block_barrier(0); }
inline int __syncthreads_count(int yes) {
    return emulator::block_barrier(yes != 0), int(emulator::votes_sum);
}
inline int __syncthreads_or(int yes) { return __syncthreads_count(yes) > 0; }
inline int __syncthreads_and(int yes) { return __syncthreads_count(yes) == int(emulator::votes_count); }
inline void __syncwarp(unsigned mask = ~0u) { emulator::warp_barrier(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const int base = int(emulator::running % warpSize) / width * width;
    return emulator::shuffle(mask, value, base + (source & (width - 1)), width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return emulator::shuffle(mask, value, int(emulator::running % warpSize) + int(by), width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return emulator::shuffle(mask, value, int(emulator::running % warpSize) - int(by), width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32) {
    return emulator::shuffle(mask, value, int(emulator::running % warpSize) ^ by, width);
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
    const unsigned bit = yes ? 1u << emulator::running % warpSize : 0;
    return emulator::reduce(mask, bit, [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, !yes) == 0; }
inline unsigned __activemask() {
    throw std::runtime_error("__activemask() is not defined after divergence: pass the mask");
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
    emulator::warp_barrier(mask, emulator::pack(value));
    unsigned same = 0;
    for (int lane = 0; lane < warpSize; ++lane)
        if (mask >> lane & 1 && emulator::warp_start() + lane < emulator::threads)
            same |= unsigned(emulator::exchanged[emulator::warp_start() + lane] == emulator::pack(value))
                    << lane;
    return same;
}
template <typename T>
T __reduce_add_sync(unsigned mask, T value) {
    return emulator::reduce(mask, value, [](T a, T b) { return T(a + b); });
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value) {
    return emulator::reduce(mask, value, [](T a, T b) { return std::min(a, b); });
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value) {
    return emulator::reduce(mask, value, [](T a, T b) { return std::max(a, b); });
}

template <typename T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return T(old + v); });
}
template <typename T>
T atomicSub(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return T(old - v); });
}
template <typename T>
T atomicMin(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return std::min(old, v); });
}
template <typename T>
T atomicMax(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return std::max(old, v); });
}
template <typename T>
T atomicOr(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return T(old | v); });
}
template <typename T>
T atomicAnd(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return T(old & v); });
}
template <typename T>
T atomicExch(T* p, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T) { return v; });
}
template <typename T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
    return emulator::exchange(p, [=](T old) { return old == expected ? v : old; });
}

template <typename T>
T __ldg(const T* p) {
    return *p;
}
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __clz(int v) { return std::countl_zero(unsigned(v)); }
inline int __clzll(long long v) { return std::countl_zero(static_cast<unsigned long long>(v)); }
inline int __ffs(int v) { return v ? std::countr_zero(unsigned(v)) + 1 : 0; }
inline int __ffsll(long long v) { return v ? std::countr_zero(static_cast<unsigned long long>(v)) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline long long __double_as_longlong(double v) { return std::bit_cast<long long>(v); }
inline double __longlong_as_double(long long v) { return std::bit_cast<double>(v); }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline double rsqrt(double v) { return 1.0 / std::sqrt(v); }
inline unsigned __vsadu4(unsigned a, unsigned b) {
    unsigned sum = 0;
    for (int s = 0; s < 32; s += 8) sum += unsigned(std::abs(int(a >> s & 255) - int(b >> s & 255)));
    return sum;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    return b < a ? std::common_type_t<A, B>(b) : std::common_type_t<A, B>(a);
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    return a < b ? std::common_type_t<A, B>(b) : std::common_type_t<A, B>(a);
}
using std::isfinite;
using std::isinf;
using std::isnan;
