// Counting bits without the popcnt instruction, which the baseline lacks; the compiler vectorizes it.
#pragma once
#include <cstdint>
#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace annvq {

// The number of the lowest bit that is set; at least one is.
inline int lowest_bit(uint64_t word) {
#if defined(_MSC_VER)
    unsigned long at;
    _BitScanForward64(&at, word);
    return static_cast<int>(at);
#else
    return __builtin_ctzll(word);
#endif
}

inline int64_t count_bits(const uint64_t* words, int64_t n) {
    uint64_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t w = words[i];
        w -= w >> 1 & 0x5555555555555555u;
        w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
        w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu;
        w += w >> 8;
        w += w >> 16;
        w += w >> 32;
        total += w & 0x7f;
    }
    return static_cast<int64_t>(total);
}

}  // namespace annvq
