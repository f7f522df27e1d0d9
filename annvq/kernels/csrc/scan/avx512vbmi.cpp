// Look-ups in byte tables held in registers: 256 entries are two vpermi2b and a blend for 64 codes, 128
// entries one vpermi2b, 64 entries one vpermb. Two nibbles are a vpermb each, which takes less than a look-up
// of their byte in the 256 sums of both.
#include <immintrin.h>

#include "scan/kernels.h"
#include "scan/score_core.h"

namespace annvq {
namespace {

template <int entries>
struct Table {
    __m512i part[entries / 64];
    explicit Table(const uint8_t* t) {
        for (int i = 0; i < entries / 64; i++) part[i] = _mm512_load_si512(t + 64 * i);
    }
    __m512i operator[](__m512i codes) const {
        if constexpr (entries == 64) return _mm512_permutexvar_epi8(codes, part[0]);
        const __m512i low = _mm512_permutex2var_epi8(part[0], codes, part[1]);
        if constexpr (entries == 256) {
            const __m512i high = _mm512_permutex2var_epi8(part[2], codes, part[3]);
            return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high);
        }
        return low;
    }
};

// Two codes of a nibble each: 16 entries for the low ones, then 16 for the high ones. vpermb reads six bits
// of an index, and each table comes four times, so the bits above a nibble's four may be anything: vpshufb
// would want them cleared.
template <>
struct Table<32> {
    __m512i low, high;
    explicit Table(const uint8_t* t) : low(row(t)), high(row(t + 16)) {}
    static __m512i row(const uint8_t* t) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(t)));
    }
    __m512i operator[](__m512i codes) const {
        return _mm512_adds_epu8(_mm512_permutexvar_epi8(codes, low),
                                _mm512_permutexvar_epi8(_mm512_srli_epi16(codes, 4), high));
    }
};

// Norm bytes beside nibbles: 32 entries.
struct NormTable {
    __m512i twice;
    explicit NormTable(const uint8_t* t)
        : twice(_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(t)))) {}
    __m512i operator[](__m512i bytes) const { return _mm512_permutexvar_epi8(bytes, twice); }
};

// Bits of the rows [first, first + 64 * sets) that lie before last.
template <int sets>
inline void drop_beyond(int64_t first, int64_t last, uint64_t* masks) {
    const int64_t valid = last - first;
    if (valid >= 64 * sets) return;
    for (int b = 0; b < sets; b++)
        if (64 * b >= valid)
            masks[b] = 0;
        else if (valid - 64 * b < 64)
            masks[b] &= (uint64_t{1} << (valid - 64 * b)) - 1;
}

// Out of line, so that the sums stay in registers where no row gets through.
template <int sets>
__attribute__((noinline)) void append(const uint8_t* sums, __m512i limit, int64_t first, int64_t last,
                                      FilteredRows* found) {
    __m512i sum[sets];
    uint64_t masks[sets];
    for (int b = 0; b < sets; b++) {
        sum[b] = _mm512_load_si512(sums + 64 * b);
        masks[b] = _mm512_cmple_epu8_mask(sum[b], limit);
    }
    drop_beyond<sets>(first, last, masks);
    // Numbers of a word's set bits side by side, without a branch to guess; what is written past them is
    // overwritten.
    alignas(64) static constexpr uint8_t kNumbers[64] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    const __m512i numbers = _mm512_load_si512(kNumbers);
    int count = found->count;
    for (int b = 0; b < sets; b++) {
        const __m512i set = _mm512_maskz_compress_epi8(masks[b], numbers);
        const __m512i own = _mm512_maskz_compress_epi8(masks[b], sum[b]);
        const __m512i start = _mm512_set1_epi16(static_cast<int16_t>(first + 64 * b));
        const auto put = [&](__m256i rows, __m256i of_rows, int at) {
            _mm512_storeu_si512(found->rows + at, _mm512_add_epi16(start, _mm512_cvtepu8_epi16(rows)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(found->sums + at), of_rows);
        };
        put(_mm512_castsi512_si256(set), _mm512_castsi512_si256(own), count);
        const int picked = __builtin_popcountll(masks[b]);
        if (picked > 32)
            put(_mm512_extracti64x4_epi64(set, 1), _mm512_extracti64x4_epi64(own, 1), count + 32);
        count += picked;
    }
    found->count = count;
}

// What one query, or two at once, have looked up: sum[q][b] of query q's rows [64 b, 64 b + 64). Two share
// each load of codes; their groups of columns end alike.
template <int queries, int sets>
using Sums = __m512i[queries][sets];

// sum[q][b] += bytes of a column, in query q's table at `offset` of its tables.
template <class Table, bool fetch, int queries, int sets>
inline void add_column(const uint8_t* codes, int64_t ahead, const uint8_t* const* tables, int offset,
                       Sums<queries, sets>& sum) {
    const Table first(tables[0] + offset), second(tables[queries - 1] + offset);
#pragma GCC unroll 8
    for (int b = 0; b < sets; b++) {
        if constexpr (fetch) __builtin_prefetch(codes + 64 * b + ahead, 0, 3);
        const __m512i code = _mm512_loadu_si512(codes + 64 * b);
        sum[0][b] = _mm512_adds_epu8(sum[0][b], first[code]);
        if constexpr (queries == 2) sum[1][b] = _mm512_adds_epu8(sum[1][b], second[code]);
    }
}

// sum = the sums of bytes of columns [from, to). norm: the last of all columns holds norm bytes, the others
// nibbles.
template <int entries, bool norm, bool fetch, int queries, int sets>
inline void add_up(const uint8_t* codes, int from, int to, const FilterTables* const* t,
                   Sums<queries, sets>& sum) {
    const uint8_t* const tables[] = {t[0]->bytes, t[queries - 1]->bytes};
    const int64_t ahead = t[0]->ahead;
#pragma GCC unroll 2
    for (int q = 0; q < queries; q++)
#pragma GCC unroll 8
        for (int b = 0; b < sets; b++) sum[q][b] = _mm512_setzero_si512();
    const int end = norm && to == t[0]->columns ? to - 1 : to;
#pragma GCC unroll 2
    for (int c = from; c < end; c++)
        add_column<Table<entries>, fetch>(codes + c * kSuperblock, ahead, tables, c * entries, sum);
    if (end < to) add_column<NormTable, fetch>(codes + end * kSuperblock, ahead, tables, end * entries, sum);
}

// sum = the mean of all groups' sums. Means of twice as many groups are made as soon as there are two.
template <int entries, bool norm, bool fetch, int queries, int sets>
inline void add_up_groups(const uint8_t* codes, const FilterTables* const* t, Sums<queries, sets>& sum) {
    const int groups = t[0]->groups;
    Sums<queries, sets> kept[kMaxGroupBits];
    for (int g = 0, from = 0; g < groups; from = t[0]->ends[g++]) {
        add_up<entries, norm, fetch>(codes, from, t[0]->ends[g], t, sum);
        int level = 0;
        for (; g >> level & 1; level++)
#pragma GCC unroll 2
            for (int q = 0; q < queries; q++)
#pragma GCC unroll 8
                for (int b = 0; b < sets; b++) sum[q][b] = _mm512_avg_epu8(sum[q][b], kept[level][q][b]);
        if (g + 1 == groups) return;
#pragma GCC unroll 2
        for (int q = 0; q < queries; q++)
#pragma GCC unroll 8
            for (int b = 0; b < sets; b++) kept[level][q][b] = sum[q][b];
    }
}

// The next 64 * sets rows, from `codes` on.
template <int entries, bool norm, bool fetch, bool several, int queries, int sets>
inline void look_up(const uint8_t* codes, int64_t first, int64_t last, const FilterTables* const* t,
                    const uint8_t* thresholds, FilteredRows* const* found) {
    Sums<queries, sets> sum;
    if constexpr (several)
        add_up_groups<entries, norm, fetch>(codes, t, sum);
    else
        add_up<entries, norm, fetch>(codes, 0, t[0]->columns, t, sum);
#pragma GCC unroll 2
    for (int q = 0; q < queries; q++) {
        const __m512i limit = _mm512_set1_epi8(static_cast<char>(thresholds[q]));
        __m512i least = sum[q][0];
#pragma GCC unroll 8
        for (int b = 1; b < sets; b++) least = _mm512_min_epu8(least, sum[q][b]);
        if (_mm512_cmple_epu8_mask(least, limit)) {
            alignas(64) uint8_t sums[64 * sets];
#pragma GCC unroll 8
            for (int b = 0; b < sets; b++) _mm512_store_si512(sums + 64 * b, sum[q][b]);
            append<sets>(sums, limit, first, last, found[q]);
        }
    }
}

template <int entries, bool norm, bool fetch, bool several, int queries>
int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables* const* t,
            const uint8_t* thresholds, FilteredRows* const* found) {
    const int columns = t[0]->columns;
    int64_t at = first;
    while (at < last && found[0]->count <= kRoom - kSuperblock &&
           found[queries - 1]->count <= kRoom - kSuperblock) {
        const uint8_t* codes = blocks + at / kSuperblock * columns * kSuperblock + at % kSuperblock;
        const int64_t block_end = (at / kSuperblock + 1) * kSuperblock;
        const int64_t sets = ((last < block_end ? last : block_end) - at + 63) / 64;
        const auto next = [&](auto look_up, int64_t rows) {
            look_up(codes, at, last, t, thresholds, found);
            at += rows;
        };
        if (sets == 8)
            next(look_up<entries, norm, fetch, several, queries, 8>, 512);
        else if (sets >= 4)
            next(look_up<entries, norm, false, several, queries, 4>, 256);
        else if (sets >= 2)
            next(look_up<entries, norm, false, several, queries, 2>, 128);
        else
            next(look_up<entries, norm, false, several, queries, 1>, 64);
    }
    return at < last ? at : last;
}

template <int entries, bool norm, int queries>
int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables* const* t,
            const uint8_t* thresholds, FilteredRows* const* found) {
    if (t[0]->groups > 1)
        return t[0]->ahead
                   ? run<entries, norm, true, true, queries>(blocks, first, last, t, thresholds, found)
                   : run<entries, norm, false, true, queries>(blocks, first, last, t, thresholds, found);
    return t[0]->ahead ? run<entries, norm, true, false, queries>(blocks, first, last, t, thresholds, found)
                       : run<entries, norm, false, false, queries>(blocks, first, last, t, thresholds, found);
}

template <int entries, bool norm = false>
int64_t filter(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t, uint8_t threshold,
               FilteredRows* found) {
    const FilterTables* const one = &t;
    return run<entries, norm, 1>(blocks, first, last, &one, &threshold, &found);
}

template <int entries, bool norm = false>
int64_t filter_two(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables* const t[2],
                   const uint8_t thresholds[2], FilteredRows* const found[2]) {
    return run<entries, norm, 2>(blocks, first, last, t, thresholds, found);
}

__mmask16 lanes(int64_t left) { return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1); }

float least(const float* table, int64_t size) {
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

void quantize(const float* table, int64_t size, float least, float scale, uint8_t* out) {
    const __m512 least_v = _mm512_set1_ps(least), scale_v = _mm512_set1_ps(scale),
                 top = _mm512_set1_ps(255.f);
    for (int64_t j = 0; j < size; j += 16) {
        const __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes(size - j), table + j), least_v);
        const __m512 scaled = _mm512_mask_min_ps(top, lanes(size - j), _mm512_mul_ps(v, scale_v), top);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + j),
                         _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(scaled)));
    }
}

void arrange(const uint8_t* bytes, const uint8_t* meaning, int entries, uint8_t* out) {
    __m512i t[4];
    for (int i = 0; i < 4; i++) t[i] = _mm512_loadu_si512(bytes + 64 * i);
    if (meaning) {
        const __m512i own[4] = {t[0], t[1], t[2], t[3]};
        for (int i = 0; i < 4; i++) {
            const __m512i at = _mm512_loadu_si512(meaning + 64 * i);
            t[i] =
                _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), _mm512_permutex2var_epi8(own[0], at, own[1]),
                                       _mm512_permutex2var_epi8(own[2], at, own[3]));
        }
    }
    if (entries <= 128) {
        t[0] = _mm512_min_epu8(t[0], t[2]);
        t[1] = _mm512_min_epu8(t[1], t[3]);
    }
    if (entries <= 64) t[0] = _mm512_min_epu8(t[0], t[1]);
    if (entries == 32)
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(out),
            _mm256_min_epu8(_mm512_castsi512_si256(t[0]), _mm512_extracti64x4_epi64(t[0], 1)));
    for (int i = 0; i < entries / 64; i++) _mm512_store_si512(out + 64 * i, t[i]);
}

int count_at_most(const uint8_t* bytes, int n, uint8_t limit) {
    const __m512i most = _mm512_set1_epi8(static_cast<char>(limit));
    int count = 0, i = 0;
    for (; i + 64 <= n; i += 64)
        count += __builtin_popcountll(_mm512_cmple_epu8_mask(_mm512_loadu_si512(bytes + i), most));
    const __mmask64 rest = (uint64_t{1} << (n - i)) - 1;
    return count + __builtin_popcountll(
                       _mm512_mask_cmple_epu8_mask(rest, _mm512_maskz_loadu_epi8(rest, bytes + i), most));
}

constexpr PooledFilter kFilters[] = {{64, filter<64>, filter_two<64>},
                                     {128, filter<128>, filter_two<128>},
                                     {256, filter<256>, filter_two<256>}};

}  // namespace
}  // namespace annvq

namespace annvq::avx512vbmi {
extern constexpr ScanKernels kScanKernels{
    least, quantize,   arrange,          count_at_most, kFilters,       3,
    2,     filter<32>, filter<32, true>, score_nibbles, filter_two<32>, filter_two<32, true>,
    true};
}
