// Sixteen float lanes on each instruction set. Included by one translation unit per instruction set, inside
// its own namespace (ANNVQ_ISA): nothing here may be shared between them.
#pragma once
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace annvq::ANNVQ_ISA {

#if defined(__AVX2__)
inline int16_t lowest_of_eight(__m128i a) {
    // phminposuw is for unsigned numbers: flip the sign bit there and back.
    const __m128i flip = _mm_set1_epi16(static_cast<int16_t>(0x8000));
    return static_cast<int16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(a, flip))) ^ 0x8000);
}
#endif

#if defined(__AVX512F__)

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

#elif defined(__AVX2__)

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

#else

struct Lanes {
    float v[16];
};
struct Ints {
    int32_t v[16];
};
struct Mask {
    int32_t v[16];
};
#define ANNVQ_EACH for (int i = 0; i < 16; i++)
inline Lanes load(const float* p) {
    Lanes r;
    ANNVQ_EACH r.v[i] = p[i];
    return r;
}
inline void store(float* p, const Lanes& a) { ANNVQ_EACH p[i] = a.v[i]; }
inline void store(int32_t* p, const Ints& a) { ANNVQ_EACH p[i] = a.v[i]; }
inline void store_rounded(int16_t* p, const Lanes& a) {
    ANNVQ_EACH {
        float v = a.v[i] < 32767.f ? a.v[i] : 32767.f;
        v = v > -32768.f ? v : -32768.f;
        p[i] = static_cast<int16_t>(__builtin_lrintf(v));
    }
}
inline Lanes splat(float a) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a;
    return r;
}
inline Ints splat(int32_t a) {
    Ints r;
    ANNVQ_EACH r.v[i] = a;
    return r;
}
inline Lanes operator+(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a.v[i] + b.v[i];
    return r;
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a.v[i] - b.v[i];
    return r;
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a.v[i] * b.v[i];
    return r;
}
inline Mask operator<(const Lanes& a, const Lanes& b) {
    Mask r;
    ANNVQ_EACH r.v[i] = a.v[i] < b.v[i];
    return r;
}
inline Mask operator<=(const Lanes& a, const Lanes& b) {
    Mask r;
    ANNVQ_EACH r.v[i] = a.v[i] <= b.v[i];
    return r;
}
inline Lanes select(const Mask& m, const Lanes& yes, const Lanes& no) {
    Lanes r;
    ANNVQ_EACH r.v[i] = m.v[i] ? yes.v[i] : no.v[i];
    return r;
}
inline Ints select(const Mask& m, const Ints& yes, const Ints& no) {
    Ints r;
    ANNVQ_EACH r.v[i] = m.v[i] ? yes.v[i] : no.v[i];
    return r;
}
inline uint32_t bits(const Mask& m) {
    uint32_t r = 0;
    ANNVQ_EACH r |= static_cast<uint32_t>(m.v[i]) << i;
    return r;
}
#undef ANNVQ_EACH

// Thirty-two 16-bit integers; sums saturate.
struct Shorts {
    int16_t v[32];
};
#define ANNVQ_EACH for (int i = 0; i < 32; i++)
inline Shorts load(const int16_t* p) {
    Shorts r;
    ANNVQ_EACH r.v[i] = p[i];
    return r;
}
inline void store(int16_t* p, const Shorts& a) { ANNVQ_EACH p[i] = a.v[i]; }
inline Shorts add(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH {
        const int32_t sum = a.v[i] + b.v[i];
        r.v[i] = static_cast<int16_t>(sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum);
    }
    return r;
}
inline Shorts lower(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return r;
}
inline Shorts splat(int16_t a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = a;
    return r;
}
inline void keep_lower(Shorts& value, Shorts& where, const Shorts& b, const Shorts& there) {
    ANNVQ_EACH {
        where.v[i] = b.v[i] < value.v[i] ? there.v[i] : where.v[i];
        value.v[i] = b.v[i] < value.v[i] ? b.v[i] : value.v[i];
    }
}
inline int16_t wrapped(int32_t a) { return static_cast<int16_t>(static_cast<uint16_t>(a)); }
inline Shorts plus(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] + b.v[i]);
    return r;
}
inline Shorts minus(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] - b.v[i]);
    return r;
}
inline Shorts times_256(const Shorts& a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] * 256);
    return r;
}
inline Shorts high_bytes(const Shorts& a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = static_cast<int16_t>(a.v[i] >> 8);
    return r;
}
inline Shorts shifted(const Shorts& a, int by) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] * (1 << by));
    return r;
}
inline uint32_t equal(const Shorts& a, int16_t b) {
    uint32_t r = 0;
    ANNVQ_EACH r |= static_cast<uint32_t>(a.v[i] == b) << i;
    return r;
}
inline int16_t lowest(const Shorts& a) {
    int16_t r = a.v[0];
    ANNVQ_EACH r = a.v[i] < r ? a.v[i] : r;
    return r;
}
#undef ANNVQ_EACH

#endif

}  // namespace annvq::ANNVQ_ISA
