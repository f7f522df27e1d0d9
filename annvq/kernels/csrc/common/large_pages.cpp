#include "common/large_pages.h"

#if defined(__linux__)
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
    void* p = std::aligned_alloc(boundary, rounded);
    if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (boundary == kLargePage) madvise(p, rounded, MADV_HUGEPAGE);
#endif
    return p;
}

void free_large_pages(void* p) { std::free(p); }

}  // namespace annvq
