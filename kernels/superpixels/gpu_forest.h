// Sets as trees: each member points to a lower one, the lowest to itself.
#pragma once

namespace lithostream::superpixels {

constexpr int kOutside = 0x7fffffff;  // points there: in no set
constexpr int kWarp = 32, kSteps = 8;
constexpr int kChunk = kWarp * kSteps;  // members numbered by one warp, as CHUNK in cuda.py

// What another thread changes meanwhile still leads to the same root.
__device__ inline int root_of(const int* parent, int member) {
    for (;;) {
        const int next = *static_cast<const volatile int*>(parent + member);
        if (next == member) return member;
        member = next;
    }
}

// Playne and Hawick (2018), doi 10.1109/TPDS.2018.2799216: whoever lowers a pointer that was no root's joins
// what it pointed to as well.
__device__ inline void join(int* parent, int one, int other) {
    for (;;) {
        one = root_of(parent, one), other = root_of(parent, other);
        if (one == other) return;
        const int high = max(one, other), low = min(one, other);
        const int old = atomicMin(&parent[high], low);
        if (old == high) return;
        one = old, other = low;
    }
}

// Number of the set of a member, once the trees are flat and number_roots has numbered them; -1 in none.
__device__ inline int number_of(const int* parent, int member) {
    const int next = parent[member];
    if (next == kOutside) return -1;
    return ~(next < 0 ? next : parent[next]);
}

}  // namespace lithostream::superpixels
