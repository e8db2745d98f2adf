// Bands of rows shared out over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace lithostream::superpixels {

// Call work(thread, band) once for each band 0..bands-1; which thread takes a band is left to chance.
template <typename Work>
void for_each_band(int64_t bands, int threads, Work&& work) {
    std::atomic<int64_t> next{0};
    const auto take = [&](int thread) {
        for (int64_t band; (band = next.fetch_add(1)) < bands;) work(thread, band);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < std::min<int64_t>(threads, bands); ++thread)
        others.emplace_back(take, thread);
    take(0);
    for (std::thread& other : others) other.join();
}

}  // namespace lithostream::superpixels
