// Byte tables and filters by pshufb, for AVX2 and for AVX-512 without VBMI; compiled once per instruction set
// (simd/pick.h).
//
// pshufb looks up 16 entries, and gives zero where an index is negative. So a chain of rows of 16 entries is
// looked up row by row, each xored with the one before it: where a code less 16 r is negative row r gives
// zero, and the xor of all answers is the entry. A chain of two serves tables of 32 and 64 entries, one of
// four larger ones; which chain's answer counts is picked by the bits above.
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
template <int bit>
inline Bytes bit_to_top(Bytes a) {
    return bit == 128 ? a : _mm512_slli_epi16(a, 7 - __builtin_ctz(bit));
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
template <int bit>
inline Bytes bit_to_top(Bytes a) {
    return bit == 128 ? a : _mm256_slli_epi16(a, 7 - __builtin_ctz(bit));
}
inline Bytes mean(Bytes a, Bytes b) { return _mm256_avg_epu8(a, b); }  // rounded up
inline Bytes lesser(Bytes a, Bytes b) { return _mm256_min_epu8(a, b); }
inline uint64_t at_most(Bytes a, Bytes limit) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(a, limit), a)));
}
#endif

constexpr int kAtOnce = 4;  // accumulators; the rest of the registers hold rows and codes

// Rows of a table that answer together by their xor. Longer chains take more subtractions, shorter ones more
// picks, which some processors make two operations of.
constexpr int chain_of(int entries) { return entries < 32 ? 1 : entries < 128 ? 2 : 4; }

// The bytes of a table of `entries` at codes. at[r]: the codes' place in a chain of rows, less 16 r.
template <int entries, int chain>
inline Bytes pick(const uint8_t* table, Bytes codes, const Bytes* at) {
    if constexpr (entries == 16 * chain) {
        Bytes found = shuffle(row(table), at[0]);
        for (int r = 1; r < chain; r++) found = differ(found, shuffle(row(table + 16 * r), at[r]));
        return found;
    } else {
        constexpr int half = entries / 2;
        return top_bit_picks(bit_to_top<half>(codes), pick<half, chain>(table, codes, at),
                             pick<half, chain>(table + half, codes, at));
    }
}

template <int entries, int queries, int each>
inline void look_up(const uint8_t* codes, const uint8_t* const* tables, int offset,
                    Bytes (&sum)[queries][each]) {
    constexpr int chain = chain_of(entries);
    for (int b = 0; b < each; b++) {
        const Bytes code = load(codes + kWidth * b);
        Bytes at[chain];
        at[0] = both(code, splat(16 * chain - 1));
        for (int r = 1; r < chain; r++) at[r] = minus(at[0], splat(16 * r));
        for (int q = 0; q < queries; q++)
            sum[q][b] = plus(sum[q][b], pick<entries, chain>(tables[q] + offset, code, at));
    }
}

template <int queries, int each>
inline void look_up_nibbles(const uint8_t* codes, const uint8_t* const* tables, int offset,
                            Bytes (&sum)[queries][each]) {
    for (int b = 0; b < each; b++) {
        const Bytes code = load(codes + kWidth * b), low = both(code, splat(15)), high = high_nibbles(code);
        for (int q = 0; q < queries; q++) {
            sum[q][b] = plus(sum[q][b], shuffle(row(tables[q] + offset), low));
            sum[q][b] = plus(sum[q][b], shuffle(row(tables[q] + offset + 16), high));
        }
    }
}

}  // namespace
}  // namespace annvq

#include "scan/filter_core.h"
#include "scan/score_core.h"

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
    // As differences, afresh where a chain begins.
    const int chain = chain_of(entries);
    for (int r = 0; 16 * r < entries; r++)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * r),
                         r % chain ? _mm_xor_si128(rows[r], rows[r - 1]) : rows[r]);
}

// From 64 entries on a look-up is bound by its shuffles, which two queries cannot share.
constexpr PooledFilter kFilters[] = {{16, filter_one<ByteCodes<16>>, filter_two<ByteCodes<16>>},
                                     {32, filter_one<ByteCodes<32>>, filter_two<ByteCodes<32>>},
                                     {64, filter_one<ByteCodes<64>>},
                                     {128, filter_one<ByteCodes<128>>},
                                     {256, filter_one<ByteCodes<256>>}};
constexpr ScanKernels kKernels{least,
                               quantize,
                               arrange,
                               count_at_most,
                               kFilters,
                               5,
                               3,
                               filter_one<NibbleCodes<false>>,
                               filter_one<NibbleCodes<true>>,
                               score_nibbles,
                               filter_two<NibbleCodes<false>>,
                               filter_two<NibbleCodes<true>>};

}  // namespace
}  // namespace annvq
