// Work shared out over threads: what a worker throws reaches the caller, and fewer threads do where no more
// start.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace lithostream {

// Call work(thread, part) once for each part 0..parts-1, on `threads` threads at most, the caller's among
// them; which thread takes a part is left to chance. After an exception no part is begun; the first one is
// rethrown.
template <typename Work>
void share(int64_t parts, int threads, Work&& work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    const auto take = [&](int thread) noexcept {
        try {
            for (int64_t part; (part = next.fetch_add(1)) < parts;) work(thread, part);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
            next = parts;
        }
    };
    std::vector<std::thread> others;
    const int64_t useful = std::min<int64_t>(threads, parts);
    if (useful > 1) others.reserve(useful - 1);
    try {
        for (int thread = 1; thread < useful; ++thread) others.emplace_back(take, thread);
    } catch (const std::system_error&) {  // no more threads to be had: those at work do it all
    } catch (const std::bad_alloc&) {
    }
    take(0);
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace lithostream
