#include "common/large_pages.h"

#if defined(_WIN32)
#include <malloc.h>
#include <windows.h>
#else
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <new>

namespace annvq {

void* large_pages(size_t bytes) {
    constexpr size_t kLargePage = 1 << 21;
    const size_t boundary = bytes >= kLargePage ? kLargePage : 64;
    const size_t rounded = (std::max<size_t>(bytes, 1) + boundary - 1) / boundary * boundary;
#if defined(_WIN32)
    void* p = _aligned_malloc(rounded, boundary);
#else
    void* p = std::aligned_alloc(boundary, rounded);
#endif
    if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    // What fills no large page stays in small ones: it would take all of one.
    if (boundary == kLargePage) madvise(p, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#endif
    return p;
}

#if defined(_WIN32)
void free_large_pages(void* p) { _aligned_free(p); }

void* own_pages(size_t bytes) {
    void* p = VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

void free_own_pages(void* p, size_t) { VirtualFree(p, 0, MEM_RELEASE); }
#else
void free_large_pages(void* p) { std::free(p); }

void* own_pages(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return p;
}

void free_own_pages(void* p, size_t bytes) { munmap(p, bytes); }
#endif

}  // namespace annvq
