// Lanes (see simd/lanes.h) in AVX-512 F, BW, DQ and VL.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "simd/lanes_x86.h"

namespace annvq {
namespace {

constexpr int kTileRows = 6, kTileGroups = 4;  // vectors by groups of lanes whose sums stay in registers
constexpr int kTileQueries = 8, kTileSquareQueries = 4;  // of tables of products, and of squares

struct Lanes {
    __m512 v;
};
struct Ints {
    __m512i v;
};
struct Mask {
    __mmask16 v;
};
inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
inline void store(int32_t* p, Ints a) { _mm512_storeu_si512(p, a.v); }
// Rounded to the nearest 16-bit integers; what is not a number gets the largest.
inline void store_rounded(int16_t* p, Lanes a) {
    const __m512 v = _mm512_max_ps(_mm512_min_ps(a.v, _mm512_set1_ps(32767.f)), _mm512_set1_ps(-32768.f));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}
inline Lanes splat(float a) { return {_mm512_set1_ps(a)}; }
inline Ints splat(int32_t a) { return {_mm512_set1_epi32(a)}; }
inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Mask operator<(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask operator<=(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline Lanes select(Mask m, Lanes yes, Lanes no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
inline Ints select(Mask m, Ints yes, Ints no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }
inline uint32_t bits(Mask m) { return m.v; }

// Thirty-two 16-bit integers; sums saturate.
struct Shorts {
    __m512i v;
};
inline Shorts load(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store(int16_t* p, Shorts a) { _mm512_storeu_si512(p, a.v); }
inline Shorts add(Shorts a, Shorts b) { return {_mm512_adds_epi16(a.v, b.v)}; }
inline Shorts lower(Shorts a, Shorts b) { return {_mm512_min_epi16(a.v, b.v)}; }
inline Shorts splat(int16_t a) { return {_mm512_set1_epi16(a)}; }
// `value` and `where` become those of b, `there`, in the lanes where b is lower.
inline void keep_lower(Shorts& value, Shorts& where, Shorts b, Shorts there) {
    where.v = _mm512_mask_mov_epi16(where.v, _mm512_cmplt_epi16_mask(b.v, value.v), there.v);
    value.v = _mm512_min_epi16(value.v, b.v);
}
inline Shorts plus(Shorts a, Shorts b) { return {_mm512_add_epi16(a.v, b.v)}; }
inline Shorts minus(Shorts a, Shorts b) { return {_mm512_sub_epi16(a.v, b.v)}; }
inline Shorts times_256(Shorts a) { return {_mm512_slli_epi16(a.v, 8)}; }
inline Shorts high_bytes(Shorts a) { return {_mm512_srai_epi16(a.v, 8)}; }
inline Shorts shifted(Shorts a, int by) { return {_mm512_sll_epi16(a.v, _mm_cvtsi32_si128(by))}; }
inline uint32_t equal(Shorts a, int16_t b) { return _mm512_cmpeq_epi16_mask(a.v, _mm512_set1_epi16(b)); }
inline int16_t lowest(Shorts a) {
    const __m256i half = _mm256_min_epi16(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
    return lowest_of_eight(_mm_min_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

}  // namespace
}  // namespace annvq
