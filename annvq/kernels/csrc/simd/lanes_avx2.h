// Lanes (see simd/lanes.h) in AVX2.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "simd/lanes_x86.h"

namespace annvq {
namespace {

constexpr int kTileRows = 3, kTileGroups = 2;  // vectors by groups of lanes whose sums stay in registers
constexpr int kTileQueries = 3, kTileSquareQueries = 4;  // of tables of products, and of squares

struct Lanes {
    __m256 a, b;
};
struct Ints {
    __m256i a, b;
};
struct Mask {
    __m256 a, b;
};
inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Lanes x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline void store(int32_t* p, Ints x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}
inline __m256i rounded_to_shorts(__m256 a) {
    const __m256 v = _mm256_max_ps(_mm256_min_ps(a, _mm256_set1_ps(32767.f)), _mm256_set1_ps(-32768.f));
    return _mm256_cvtps_epi32(v);
}
inline void store_rounded(int16_t* p, Lanes x) {
    // Packing works on 128-bit halves: put the quarters back in order.
    const __m256i packed = _mm256_packs_epi32(rounded_to_shorts(x.a), rounded_to_shorts(x.b));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xD8));
}
inline Lanes splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Ints splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Lanes operator+(Lanes x, Lanes y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Lanes operator-(Lanes x, Lanes y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Lanes operator*(Lanes x, Lanes y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Mask operator<(Lanes x, Lanes y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
inline Mask operator<=(Lanes x, Lanes y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)};
}
inline Lanes select(Mask m, Lanes yes, Lanes no) {
    return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
inline Ints select(Mask m, Ints yes, Ints no) {
    return {_mm256_blendv_epi8(no.a, yes.a, _mm256_castps_si256(m.a)),
            _mm256_blendv_epi8(no.b, yes.b, _mm256_castps_si256(m.b))};
}
inline uint32_t bits(Mask m) {
    return static_cast<uint32_t>(_mm256_movemask_ps(m.a)) | static_cast<uint32_t>(_mm256_movemask_ps(m.b))
                                                                << 8;
}

// Thirty-two 16-bit integers; sums saturate.
struct Shorts {
    __m256i a, b;
};
inline Shorts load(const int16_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16))};
}
inline void store(int16_t* p, Shorts x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16), x.b);
}
inline Shorts add(Shorts x, Shorts y) { return {_mm256_adds_epi16(x.a, y.a), _mm256_adds_epi16(x.b, y.b)}; }
inline Shorts lower(Shorts x, Shorts y) { return {_mm256_min_epi16(x.a, y.a), _mm256_min_epi16(x.b, y.b)}; }
inline Shorts splat(int16_t x) { return {_mm256_set1_epi16(x), _mm256_set1_epi16(x)}; }
inline void keep_lower(Shorts& value, Shorts& where, Shorts b, Shorts there) {
    where.a = _mm256_blendv_epi8(where.a, there.a, _mm256_cmpgt_epi16(value.a, b.a));
    where.b = _mm256_blendv_epi8(where.b, there.b, _mm256_cmpgt_epi16(value.b, b.b));
    value = {_mm256_min_epi16(value.a, b.a), _mm256_min_epi16(value.b, b.b)};
}
inline Shorts plus(Shorts x, Shorts y) { return {_mm256_add_epi16(x.a, y.a), _mm256_add_epi16(x.b, y.b)}; }
inline Shorts minus(Shorts x, Shorts y) { return {_mm256_sub_epi16(x.a, y.a), _mm256_sub_epi16(x.b, y.b)}; }
inline Shorts times_256(Shorts x) { return {_mm256_slli_epi16(x.a, 8), _mm256_slli_epi16(x.b, 8)}; }
inline Shorts high_bytes(Shorts x) { return {_mm256_srai_epi16(x.a, 8), _mm256_srai_epi16(x.b, 8)}; }
inline Shorts shifted(Shorts x, int by) {
    const __m128i count = _mm_cvtsi32_si128(by);
    return {_mm256_sll_epi16(x.a, count), _mm256_sll_epi16(x.b, count)};
}
inline uint32_t equal(Shorts x, int16_t y) {
    const __m256i b = _mm256_set1_epi16(y);
    // Packing to bytes works on 128-bit halves: put the quarters back in order before the bits are taken.
    const __m256i bytes = _mm256_packs_epi16(_mm256_cmpeq_epi16(x.a, b), _mm256_cmpeq_epi16(x.b, b));
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xD8)));
}
inline int16_t lowest(Shorts x) {
    const __m256i half = _mm256_min_epi16(x.a, x.b);
    return lowest_of_eight(_mm_min_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

}  // namespace
}  // namespace annvq
