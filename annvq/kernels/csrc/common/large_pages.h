// Memory on a large-page boundary where it is large: rows that are read at random would else cost a walk
// through page tables each, and pages of codes one for each single query.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace annvq {

void* large_pages(size_t bytes);
void free_large_pages(void* p);

// Zeros in pages of their own, which go back to the system when they are freed.
void* own_pages(size_t bytes);
void free_own_pages(void* p, size_t bytes);

template <class T>
struct LargePages {
    using value_type = T;
    LargePages() = default;
    template <class U>
    LargePages(const LargePages<U>&) {}
    T* allocate(size_t count) { return static_cast<T*>(large_pages(count * sizeof(T))); }
    void deallocate(T* p, size_t) { free_large_pages(p); }
    template <class U>
    bool operator==(const LargePages<U>&) const {
        return true;
    }
    template <class U>
    bool operator!=(const LargePages<U>&) const {
        return false;
    }
};

template <class T>
using LargeVector = std::vector<T, LargePages<T>>;

}  // namespace annvq
