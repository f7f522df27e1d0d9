#include "common/parallel.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <system_error>
#include <thread>

#include "common/mutex.h"
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace annvq {
namespace {

constexpr int kMostThreads = 512;
// To wake a thread that sleeps may take longer than a search: those that have just worked look out for the
// next job so long before they sleep.
constexpr std::chrono::microseconds kWatch{200};

// Whether `ready` comes true before kWatch is over.
template <class Ready>
bool watch(Ready ready) {
    const auto end = std::chrono::steady_clock::now() + kWatch;
    while (std::chrono::steady_clock::now() < end)
        for (int i = 0; i < 16; i++) {
            if (ready()) return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    return false;
}

struct Job {
    const std::function<void()>& work;
    std::atomic<int> running{0};  // helpers
};

// Threads that wait for jobs. Made when first wanted and never ended: whoever waits at exit goes with the
// process.
class Helpers {
  public:
    void run(int helpers, const std::function<void()>& work) {
        Job job{work};
        {
            std::lock_guard<std::mutex> lock(mutex_);
            grow(helpers);
            wanted_.insert(wanted_.end(), std::min(helpers, threads_), &job);
            jobs_ = wanted_.size();
        }
        for (int i = 0; i < helpers; i++) wake_.notify_one();  // not those who are not wanted
        work();
        {
            std::lock_guard<std::mutex> lock(mutex_);  // who has not been free by now need not come
            wanted_.erase(std::remove(wanted_.begin(), wanted_.end(), &job), wanted_.end());
            jobs_ = wanted_.size();
        }
        watch([&] { return job.running == 0; });
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return job.running == 0; });
    }

  private:
    // Fewer threads than asked for do the same work.
    void grow(int helpers) {
        try {
            for (; threads_ < std::min(helpers, kMostThreads); threads_++)
                std::thread([this] { serve(); }).detach();
        } catch (const std::system_error&) {
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            lock.unlock();
            watch([&] { return jobs_ > 0; });
            lock.lock();
            wake_.wait(lock, [&] { return !wanted_.empty(); });
            Job* job = wanted_.front();
            wanted_.pop_front();
            jobs_ = wanted_.size();
            job->running++;
            lock.unlock();
            job->work();
            lock.lock();
            if (--job->running == 0) done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::deque<Job*> wanted_;      // one entry for each helper
    std::atomic<size_t> jobs_{0};  // how many
    int threads_ = 0;
};

Helpers* the_helpers = nullptr;

// Threads do not survive a fork, and a mutex may have been held: the child begins anew.
void renew() { the_helpers = new Helpers; }

Helpers& helper_threads() {
    static std::once_flag once;
    std::call_once(once, [] {
        renew();
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, renew);
#endif
    });
    return *the_helpers;
}

}  // namespace

void run_together(int helpers, const std::function<void()>& work) {
    const bool inside = Gate::is_inside();
    helper_threads().run(helpers, [&] {
        const Gate::Lent lent(inside);
        work();
    });
}

}  // namespace annvq
