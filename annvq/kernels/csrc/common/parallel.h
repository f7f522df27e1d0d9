// parallel_for: run fn(i) for i in [0, n) on up to `threads` threads; the caller's thread is one of them.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace annvq {

// Runs work() in the caller's thread and, as far as they are free, in `helpers` others that wait for such
// work all the time; returns when all are done. work must not throw.
void run_together(int helpers, const std::function<void()>& work);

template <class Fn>
void parallel_for(int64_t n, int threads, Fn&& fn) {
    if (threads > n) threads = static_cast<int>(n);
    if (threads <= 1) {
        for (int64_t i = 0; i < n; i++) fn(i);
        return;
    }
    std::atomic<int64_t> next{0};
    std::exception_ptr error;
    std::mutex error_mutex;
    run_together(threads - 1, [&] {
        try {
            for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) fn(i);
        } catch (...) {
            std::lock_guard<std::mutex> lock(error_mutex);
            if (!error) error = std::current_exception();
            next.store(n, std::memory_order_relaxed);
        }
    });
    if (error) std::rethrow_exception(error);
}

}  // namespace annvq
