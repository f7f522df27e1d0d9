// Look-ups in 256-entry byte tables held in four registers: two vpermi2b and a blend answer 64 codes.
#include <immintrin.h>

#include "query.h"

namespace annvq {
namespace {

bool filter_block_vbmi(const uint8_t* block, int columns, const uint8_t* tables, uint8_t threshold,
                       uint64_t* masks) {
    __m512i sum[8];
    for (auto& s : sum) s = _mm512_setzero_si512();
#pragma GCC unroll 1
    for (int m = 0; m < columns; m++) {
        const uint8_t* t = tables + m * 256;
        const __m512i t0 = _mm512_loadu_si512(t), t1 = _mm512_loadu_si512(t + 64);
        const __m512i t2 = _mm512_loadu_si512(t + 128), t3 = _mm512_loadu_si512(t + 192);
#pragma GCC unroll 8
        for (int b = 0; b < 8; b++) {
            const __m512i c = _mm512_loadu_si512(block + m * kBlock + 64 * b);
            const __m512i low = _mm512_permutex2var_epi8(t0, c, t1),
                          high = _mm512_permutex2var_epi8(t2, c, t3);
            sum[b] = _mm512_adds_epu8(sum[b], _mm512_mask_blend_epi8(_mm512_movepi8_mask(c), low, high));
        }
    }
    const __m512i limit = _mm512_set1_epi8(static_cast<char>(threshold));
    uint64_t any = 0;
    for (int b = 0; b < 8; b++) any |= masks[b] = _mm512_cmple_epu8_mask(sum[b], limit);
    return any != 0;
}

__mmask16 lanes(int64_t left) { return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1); }

float least_vbmi(const float* table, int64_t size) {
    __m512 least = _mm512_set1_ps(__builtin_inff());
    __mmask16 nan = 0;
    for (int64_t j = 0; j < size; j += 16) {
        const __mmask16 valid = lanes(size - j);
        const __m512 v = _mm512_maskz_loadu_ps(valid, table + j);
        nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        least = _mm512_mask_min_ps(least, valid, least, v);
    }
    return nan ? __builtin_nanf("") : _mm512_reduce_min_ps(least);
}

void quantize_vbmi(const float* table, int64_t size, float least, float scale, uint8_t* out) {
    const __m512 least_v = _mm512_set1_ps(least), scale_v = _mm512_set1_ps(scale),
                 top = _mm512_set1_ps(255.f);
    for (int64_t j = 0; j < size; j += 16) {
        const __mmask16 valid = lanes(size - j);
        const __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(valid, table + j), least_v);
        const __m512i q = _mm512_cvttps_epi32(_mm512_min_ps(_mm512_mul_ps(v, scale_v), top));
        _mm512_mask_cvtepi32_storeu_epi8(out + j, valid, q);
    }
}

}  // namespace

const BlockKernels vbmi_block_kernels{filter_block_vbmi, least_vbmi, quantize_vbmi};

}  // namespace annvq
