// What the lanes of x86 instruction sets share.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace annvq {
namespace {

inline int16_t lowest_of_eight(__m128i a) {
    // phminposuw is for unsigned numbers: flip the sign bit there and back.
    const __m128i flip = _mm_set1_epi16(static_cast<int16_t>(0x8000));
    return static_cast<int16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(a, flip))) ^ 0x8000);
}

}  // namespace
}  // namespace annvq
