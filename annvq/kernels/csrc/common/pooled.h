// An allocator for the many small buffers that a batch of queries takes and gives back at once: each thread
// keeps what it gave back. (The C library keeps a handful of each size at hand.)
#pragma once
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace annvq {

class Pool {
  public:
    static void* take(size_t bytes) {
        const int size = class_of(bytes);
        if (size == kClasses) return fresh(bytes);
        auto& kept = own().kept_[size];
        if (kept.empty()) return fresh(kLeast << size);
        void* block = kept.back();
        kept.pop_back();
        return block;
    }
    static void give_back(void* block, size_t bytes) noexcept {
        const int size = class_of(bytes);
        if (size < kClasses) {
            auto& kept = own().kept_[size];
            if (kept.size() < kept.capacity()) return kept.push_back(block);
        }
        ::operator delete(block, kAlignment);
    }

  private:
    static constexpr std::align_val_t kAlignment{64};
    static constexpr size_t kLeast = 64, kKept = 1024;
    static constexpr int kClasses = 7;  // 64 bytes to 4 KiB

    Pool() {
        for (auto& kept : kept_) kept.reserve(kKept);
    }
    ~Pool() {
        for (auto& kept : kept_)
            for (void* block : kept) ::operator delete(block, kAlignment);
    }
    static Pool& own() {
        static thread_local Pool pool;
        return pool;
    }
    static void* fresh(size_t bytes) { return ::operator new(bytes, kAlignment); }
    static int class_of(size_t bytes) {
        int size = 0;
        while (size < kClasses && kLeast << size < bytes) size++;
        return size;
    }

    std::vector<void*> kept_[kClasses];
};

template <class T>
struct Pooled {
    using value_type = T;
    Pooled() = default;
    template <class U>
    Pooled(const Pooled<U>&) {}

    // Numbers begin with whatever is there: who grows a vector writes them.
    template <class U>
    void construct(U* at) {
        ::new (static_cast<void*>(at)) U;
    }
    template <class U, class... From>
    void construct(U* at, From&&... from) {
        ::new (static_cast<void*>(at)) U(std::forward<From>(from)...);
    }

    T* allocate(size_t n) { return static_cast<T*>(Pool::take(n * sizeof(T))); }
    void deallocate(T* block, size_t n) noexcept { Pool::give_back(block, n * sizeof(T)); }
    template <class U>
    bool operator==(const Pooled<U>&) const {
        return true;
    }
    template <class U>
    bool operator!=(const Pooled<U>&) const {
        return false;
    }
};

template <class T>
using PooledVector = std::vector<T, Pooled<T>>;

}  // namespace annvq
