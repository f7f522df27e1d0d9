// Byte tables and filters by pshufb, for AVX2 and for AVX-512 without VBMI; compiled once per instruction set
// (simd/pick.h).
//
// pshufb looks up 16 entries. More are looked up row by row: row j holds the entries 16 j .. 16 j + 15, xored
// with row j - 1; pshufb gives zero where (code - 16 j) is negative, so the xor of all rows' answers is the
// entry.
#pragma once
#include <immintrin.h>

#include "scan/kernels.h"

namespace annvq {
namespace {

#if defined(__AVX512BW__)
using Bytes = __m512i;
constexpr int kWidth = 64;
inline Bytes load(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline void store(uint8_t* p, Bytes a) { _mm512_store_si512(p, a); }
inline Bytes row(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Bytes splat(int b) { return _mm512_set1_epi8(static_cast<char>(b)); }
inline Bytes shuffle(Bytes t, Bytes i) { return _mm512_shuffle_epi8(t, i); }
inline Bytes both(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
inline Bytes differ(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
inline Bytes minus(Bytes a, Bytes b) { return _mm512_sub_epi8(a, b); }
inline Bytes plus(Bytes a, Bytes b) { return _mm512_adds_epu8(a, b); }
inline Bytes high_nibbles(Bytes a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), splat(15)); }
inline Bytes top_bit_picks(Bytes c, Bytes low, Bytes high) {
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(c), low, high);
}
inline Bytes mean(Bytes a, Bytes b) { return _mm512_avg_epu8(a, b); }  // rounded up
inline Bytes lesser(Bytes a, Bytes b) { return _mm512_min_epu8(a, b); }
inline uint64_t at_most(Bytes a, Bytes limit) { return _mm512_cmple_epu8_mask(a, limit); }
#else
using Bytes = __m256i;
constexpr int kWidth = 32;
inline Bytes load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void store(uint8_t* p, Bytes a) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), a); }
inline Bytes row(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Bytes splat(int b) { return _mm256_set1_epi8(static_cast<char>(b)); }
inline Bytes shuffle(Bytes t, Bytes i) { return _mm256_shuffle_epi8(t, i); }
inline Bytes both(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
inline Bytes differ(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
inline Bytes minus(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
inline Bytes plus(Bytes a, Bytes b) { return _mm256_adds_epu8(a, b); }
inline Bytes high_nibbles(Bytes a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), splat(15)); }
inline Bytes top_bit_picks(Bytes c, Bytes low, Bytes high) { return _mm256_blendv_epi8(low, high, c); }
inline Bytes mean(Bytes a, Bytes b) { return _mm256_avg_epu8(a, b); }  // rounded up
inline Bytes lesser(Bytes a, Bytes b) { return _mm256_min_epu8(a, b); }
inline uint64_t at_most(Bytes a, Bytes limit) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(a, limit), a)));
}
#endif

constexpr int kAtOnce = 4;  // accumulators; the rest of the registers hold rows and codes

// sum[b] += table of `entries` at the codes of kAtOnce vectors.
template <int entries>
inline void look_up(const uint8_t* codes, const uint8_t* table, Bytes* sum) {
    constexpr int reach = entries < 128 ? entries : 128, rows = reach / 16;
    Bytes code[kAtOnce], low[kAtOnce], high[kAtOnce];
    for (int b = 0; b < kAtOnce; b++) code[b] = both(load(codes + kWidth * b), splat(reach - 1));
    for (int r = 0; r < rows; r++) {
        const Bytes t = row(table + 16 * r);
        for (int b = 0; b < kAtOnce; b++) {
            const Bytes found = shuffle(t, code[b]);
            low[b] = r ? differ(low[b], found) : found;
            if constexpr (entries == 256) {
                const Bytes above = shuffle(row(table + 128 + 16 * r), code[b]);
                high[b] = r ? differ(high[b], above) : above;
            }
            code[b] = minus(code[b], splat(16));
        }
    }
    for (int b = 0; b < kAtOnce; b++) {
        if constexpr (entries == 256) low[b] = top_bit_picks(load(codes + kWidth * b), low[b], high[b]);
        sum[b] = plus(sum[b], low[b]);
    }
}

inline void look_up_nibbles(const uint8_t* codes, const uint8_t* table, Bytes* sum) {
    const Bytes low = row(table), high = row(table + 16);
    for (int b = 0; b < kAtOnce; b++) {
        const Bytes code = load(codes + kWidth * b);
        sum[b] = plus(sum[b], shuffle(low, both(code, splat(15))));
        sum[b] = plus(sum[b], shuffle(high, high_nibbles(code)));
    }
}

}  // namespace
}  // namespace annvq

#include "scan/filter_core.h"

namespace annvq {
namespace {

float least(const float* table, int64_t size) {
    __m256 low = _mm256_set1_ps(__builtin_inff()), odd = _mm256_setzero_ps();
    int64_t j = 0;
    for (; j + 8 <= size; j += 8) {
        const __m256 v = _mm256_loadu_ps(table + j);
        low = _mm256_min_ps(low, v);
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, low);
    bool nan = _mm256_movemask_ps(odd) != 0;
    for (; j < size; j++) {
        nan |= !(table[j] == table[j]);
        lanes[0] = table[j] < lanes[0] ? table[j] : lanes[0];
    }
    for (int l = 1; l < 8; l++) lanes[0] = lanes[l] < lanes[0] ? lanes[l] : lanes[0];
    return nan ? __builtin_nanf("") : lanes[0];
}

void arrange(const uint8_t* bytes, const uint8_t* meaning, int entries, uint8_t* out) {
    alignas(64) uint8_t moved[256];
    if (meaning) {
        for (int b = 0; b < 256; b++) moved[b] = bytes[meaning[b]];
        bytes = moved;
    }
    __m128i rows[16];
    for (int r = 0; r < 16; r++) rows[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16 * r));
    for (int half = 8; 16 * half >= entries; half /= 2)
        for (int r = 0; r < half; r++) rows[r] = _mm_min_epu8(rows[r], rows[r + half]);
    // As differences, afresh at entry 128, where look_up begins a second run.
    for (int r = 0; 16 * r < entries; r++)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * r),
                         r % 8 ? _mm_xor_si128(rows[r], rows[r - 1]) : rows[r]);
}

constexpr PooledFilter kFilters[] = {
    {16, filter<16>}, {32, filter<32>}, {64, filter<64>}, {128, filter<128>}, {256, filter<256>}};
constexpr ScanKernels kKernels{
    least, quantize, arrange, count_at_most, kFilters, 5, 3, filter_nibbles<false>, filter_nibbles<true>};

}  // namespace
}  // namespace annvq
