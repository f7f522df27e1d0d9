// Mutexes for whatever outlives a call. A process may fork while other threads change a store or read it:
// fork() waits until no thread holds one of these and lets none be taken meanwhile, so that the child finds
// all of them free and what they guard whole.
//
// Who holds one must not wait for Python's lock, which whoever forks may hold.
#pragma once
#include <mutex>
#include <shared_mutex>

namespace annvq {

// What a thread passes through for as long as it holds mutexes; closed while the process forks.
class Gate {
  public:
    static void enter();
    static void leave();
    static bool is_inside();  // whether this thread holds a mutex

    // For threads that work for one that may be inside: they count as part of it.
    class Lent {
      public:
        explicit Lent(bool inside);
        ~Lent();
        Lent(const Lent&) = delete;
        Lent& operator=(const Lent&) = delete;

      private:
        bool inside_;
    };
};

// A std::mutex or std::shared_mutex that is held within the gate only.
template <class Inner>
class Gated {
  public:
    Gated() = default;
    Gated(const Gated&) = delete;
    Gated& operator=(const Gated&) = delete;

    void lock() {
        Gate::enter();
        inner_.lock();
    }
    void unlock() {
        inner_.unlock();
        Gate::leave();
    }
    void lock_shared() {
        Gate::enter();
        inner_.lock_shared();
    }
    void unlock_shared() {
        inner_.unlock_shared();
        Gate::leave();
    }

  private:
    Inner inner_;
};

using Mutex = Gated<std::mutex>;
using SharedMutex = Gated<std::shared_mutex>;

}  // namespace annvq
