// Rows of nibbles scored in float, sixteen side by side; compiled once per instruction set (simd/pick.h).
//
// A table of sixteen floats fits registers, so that a permutation looks up sixteen rows at once. Their codes
// lie a cache line apart in every column and are brought together first.
#pragma once
#include <immintrin.h>

#include "scan/kernels.h"

namespace annvq {
namespace {

// Sums of sixteen rows. add: a table's entries for their codes, which are the low four bits (high: the next
// four) of bytes.
#if defined(__AVX512F__)
using Codes = __m512i;
inline Codes widened(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
struct Scores {
    __m512 v = _mm512_setzero_ps();
    template <bool high>
    void add(const float* table, Codes codes) {
        const __m512i at = high ? _mm512_srli_epi32(codes, 4) : codes;
        v = _mm512_add_ps(v, _mm512_permutexvar_ps(at, _mm512_loadu_ps(table)));
    }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
};
#else
struct Codes {
    __m256i a, b;
};
inline Codes widened(const uint8_t* p) {
    const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
struct Scores {
    __m256 a = _mm256_setzero_ps(), b = _mm256_setzero_ps();
    template <bool high>
    static __m256 entries(__m256i codes, __m256 first, __m256 second) {
        const __m256i at = high ? _mm256_srli_epi32(codes, 4) : codes;
        return _mm256_blendv_ps(_mm256_permutevar8x32_ps(first, at), _mm256_permutevar8x32_ps(second, at),
                                _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)));
    }
    template <bool high>
    void add(const float* table, Codes codes) {
        const __m256 first = _mm256_loadu_ps(table), second = _mm256_loadu_ps(table + 8);
        a = _mm256_add_ps(a, entries<high>(codes.a, first, second));
        b = _mm256_add_ps(b, entries<high>(codes.b, first, second));
    }
    void store(float* p) const {
        _mm256_storeu_ps(p, a);
        _mm256_storeu_ps(p + 8, b);
    }
};
#endif

void score_nibbles(const uint8_t* blocks, int64_t stride, const uint32_t* rows, int count, const float* luts,
                   int M, float* out) {
    constexpr int kSide = 16, kColumns = 64;
    constexpr int kGathered = 4;  // rows whose codes are brought together at a time: more loads in flight
    alignas(64) uint8_t codes[kColumns * kSide] = {};
    const int columns = (M + 1) / 2;
    for (int i = 0; i < count; i += kSide) {
        const int n = count - i < kSide ? count - i : kSide;
        Scores sum;
        for (int first = 0; first < columns; first += kColumns) {
            const int last = first + kColumns < columns ? first + kColumns : columns;
            for (int j = 0; j < n; j += kGathered) {
                const uint8_t* own[kGathered];
                for (int g = 0; g < kGathered; g++) {
                    const int64_t row = rows[i + (j + g < n ? j + g : n - 1)];
                    own[g] = blocks + row / kSuperblock * stride + row % kSuperblock;
                }
                for (int c = first; c < last; c++)
                    for (int g = 0; g < kGathered; g++)
                        codes[(c - first) * kSide + j + g] = own[g][c * kSuperblock];
            }
            for (int c = first; c < last; c++) {
                const Codes two = widened(codes + (c - first) * kSide);
                sum.add<false>(luts + 32 * c, two);
                if (2 * c + 1 < M) sum.add<true>(luts + 32 * c + 16, two);
            }
        }
        float all[kSide];
        sum.store(all);
        for (int j = 0; j < n; j++) out[i + j] = all[j];
    }
}

}  // namespace
}  // namespace annvq
