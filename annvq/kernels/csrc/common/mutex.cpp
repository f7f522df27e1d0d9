#include "common/mutex.h"

#include <atomic>
#include <chrono>
#include <thread>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace annvq {
namespace {

std::atomic<int> inside{0};  // threads
std::atomic<bool> closed{false};
thread_local int depth = 0;  // mutexes that this thread holds or waits for

// Looked at again and again: a condition variable would not survive the fork.
template <class Done>
void wait_until(Done done) {
    while (!done()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

void close_gate() {
    wait_until([] { return !closed.exchange(true); });  // another thread may be forking
    const int own = depth > 0;
    wait_until([&] { return inside == own; });
}
void open_gate() { closed = false; }
void open_in_child() {
    inside = depth > 0;  // the other threads are not there
    closed = false;
}

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int registered = pthread_atfork(close_gate, open_gate, open_in_child);
#endif

}  // namespace

void Gate::enter() {
    if (depth++) return;
    for (;;) {
        inside++;
        if (!closed) return;
        inside--;
        wait_until([] { return !closed.load(); });
    }
}

void Gate::leave() {
    if (!--depth) inside--;
}

bool Gate::is_inside() { return depth > 0; }

Gate::Lent::Lent(bool inside) : inside_(inside) { depth += inside_; }
Gate::Lent::~Lent() { depth -= inside_; }

}  // namespace annvq
