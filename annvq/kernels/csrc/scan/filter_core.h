// Filters over superblocks, and what else a level with byte look-ups gives the scan; compiled once per
// instruction set (simd/pick.h). A file that includes this one has defined, in the same namespace:
//
//     Bytes, kWidth                        bytes side by side, and how many
//     kAtOnce                              sums that stay in registers, of kWidth bytes each
//     load store splat mean lesser at_most      on Bytes; means are rounded up, at_most gives a bit for each
//     byte
//     look_up<entries>, look_up_nibbles    (codes, tables, offset, sum): sum[q][b] += bytes of query q's
//     table
//                                          at tables[q] + offset, for codes [kWidth b, kWidth (b + 1)); of
//                                          one query kAtOnce such sums, of two half as many each
#pragma once
#include "scan/kernels.h"

namespace annvq {
namespace {

template <int queries>
constexpr int kEach = kAtOnce / queries;  // sums of each query
template <int queries>
using Sums = Bytes[queries][kEach<queries>];
template <int queries>
constexpr int kStep = kEach<queries> * kWidth;  // rows looked up together

// Rows that have been looked up and whose sums are at most the limit, 64 at a time.
struct Found {
    uint64_t bits;
    int64_t at;  // the row of bit 0
};

// Of the rows [at, at + kStep) but those outside [first, last); returns the end of what it wrote.
template <int queries>
inline Found* find(const uint8_t* sums, Bytes limit, int64_t at, int64_t first, int64_t last, Found* out) {
    uint64_t bits[kStep<queries> / 64] = {};
    for (int b = 0; b < kEach<queries>; b++)
        bits[kWidth * b / 64] |= at_most(load(sums + kWidth * b), limit) << (kWidth * b % 64);
    for (uint64_t set : bits) {
        if (last < at + 64) set = last > at ? set & ((uint64_t{1} << (last - at)) - 1) : 0;
        if (first > at) set = first < at + 64 ? set >> (first - at) << (first - at) : 0;
        *out = {set, at};
        out += set != 0;  // no branch: no guess
        at += 64;
    }
    return out;
}

// Appends these rows; sums are those of the rows from `start` on.
inline void append(const Found* words, const Found* end, const uint8_t* sums, int64_t start,
                   FilteredRows* found) {
    int count = found->count;
    for (; words != end; words++) {
        uint64_t set = words->bits;
        do {
            const int64_t row = words->at + __builtin_ctzll(set);
            found->rows[count] = static_cast<uint16_t>(row);
            found->sums[count++] = sums[row - start];
            set &= set - 1;
        } while (set);
    }
    found->count = count;
}

// sum = the bytes of columns [from, to), as LookUp adds them up.
template <class LookUp, bool fetch, int queries>
inline void add_up(const uint8_t* codes, int from, int to, const FilterTables* const* t, Sums<queries>& sum) {
    const uint8_t* const tables[] = {t[0]->bytes, t[queries - 1]->bytes};
    const int64_t ahead = t[0]->ahead;
    const int columns = t[0]->columns;
    for (auto& own : sum)
        for (Bytes& s : own) s = splat(0);
#pragma GCC unroll 2
    for (int c = from; c < to; c++) {
        const uint8_t* own = codes + c * kSuperblock;
        if constexpr (fetch)
            for (int l = 0; l < kStep<queries>; l += 64) __builtin_prefetch(own + ahead + l, 0, 3);
        LookUp::template add<queries>(own, tables, c, columns, sum);
    }
}

// sum = the mean of all groups' sums. Means of twice as many groups are made as soon as there are two.
template <class LookUp, bool fetch, int queries>
inline void add_up_groups(const uint8_t* codes, const FilterTables* const* t, Sums<queries>& sum) {
    const int groups = t[0]->groups;
    Sums<queries> kept[kMaxGroupBits];
    for (int g = 0, from = 0; g < groups; from = t[0]->ends[g++]) {
        add_up<LookUp, fetch, queries>(codes, from, t[0]->ends[g], t, sum);
        int level = 0;
        for (; g >> level & 1; level++)
            for (int q = 0; q < queries; q++)
                for (int b = 0; b < kEach<queries>; b++) sum[q][b] = mean(sum[q][b], kept[level][q][b]);
        if (g + 1 == groups) return;
        for (int q = 0; q < queries; q++)
            for (int b = 0; b < kEach<queries>; b++) kept[level][q][b] = sum[q][b];
    }
}

inline Bytes least_of(const Bytes (&sum)[4]) {
    return lesser(lesser(sum[0], sum[1]), lesser(sum[2], sum[3]));
}
inline Bytes least_of(const Bytes (&sum)[2]) { return lesser(sum[0], sum[1]); }

// Looks up as many superblocks as there is room for, then picks rows out of those steps that hold some, and
// out of their words: asked step by step whether there are any, a processor would often guess wrong.
template <class LookUp, bool fetch, bool several, int queries>
inline int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables* const* t,
                   const uint8_t* thresholds, FilteredRows* const* found) {
    constexpr int step = kStep<queries>;
    const int columns = t[0]->columns;
    const Bytes limits[] = {splat(thresholds[0]), splat(thresholds[queries - 1])};
    alignas(64) uint8_t sums[queries][kRoom];
    int64_t at = first / step * step;
    const auto room = [&] {  // superblocks
        const int most =
            found[0]->count > found[queries - 1]->count ? found[0]->count : found[queries - 1]->count;
        return (kRoom - most) / kSuperblock;
    };
    while (at < last && room()) {
        const int64_t start = at;
        int64_t end = (at / kSuperblock + room()) * kSuperblock;
        if (last < end) end = last;
        int64_t holding[queries][kRoom / step];
        int count[queries] = {};
        while (at < end) {
            const int64_t block = at / kSuperblock, block_end = (block + 1) * kSuperblock;
            const uint8_t* codes = blocks + block * columns * kSuperblock + at % kSuperblock;
            for (; at < block_end && at < end; at += step, codes += step) {
                Sums<queries> sum;
                if constexpr (several)
                    add_up_groups<LookUp, fetch, queries>(codes, t, sum);
                else
                    add_up<LookUp, fetch, queries>(codes, 0, columns, t, sum);
                for (int q = 0; q < queries; q++) {
                    for (int b = 0; b < kEach<queries>; b++)
                        store(sums[q] + (at - start) + kWidth * b, sum[q][b]);
                    holding[q][count[q]] = at;
                    count[q] += at_most(least_of(sum[q]), limits[q]) != 0;
                }
            }
        }
        for (int q = 0; q < queries; q++) {
            Found words[kRoom / 64 + 1], *words_end = words;
            for (int i = 0; i < count[q]; i++)
                words_end = find<queries>(sums[q] + (holding[q][i] - start), limits[q], holding[q][i], first,
                                          last, words_end);
            append(words, words_end, sums[q], start, found[q]);
        }
    }
    return at < last ? at : last;
}

template <class LookUp, int queries>
inline int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables* const* t,
                   const uint8_t* thresholds, FilteredRows* const* found) {
    if (t[0]->groups > 1)
        return t[0]->ahead ? run<LookUp, true, true, queries>(blocks, first, last, t, thresholds, found)
                           : run<LookUp, false, true, queries>(blocks, first, last, t, thresholds, found);
    return t[0]->ahead ? run<LookUp, true, false, queries>(blocks, first, last, t, thresholds, found)
                       : run<LookUp, false, false, queries>(blocks, first, last, t, thresholds, found);
}

template <class LookUp>
int64_t filter_one(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t,
                   uint8_t threshold, FilteredRows* found) {
    const FilterTables* const one = &t;
    return run<LookUp, 1>(blocks, first, last, &one, &threshold, &found);
}

template <class LookUp>
int64_t filter_two(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables* const t[2],
                   const uint8_t thresholds[2], FilteredRows* const found[2]) {
    return run<LookUp, 2>(blocks, first, last, t, thresholds, found);
}

// A byte is a code.
template <int entries>
struct ByteCodes {
    template <int queries>
    static void add(const uint8_t* codes, const uint8_t* const* tables, int column, int, Sums<queries>& sum) {
        look_up<entries>(codes, tables, column * entries, sum);
    }
};

// A byte is two codes; norm: but in the last column.
template <bool norm>
struct NibbleCodes {
    template <int queries>
    static void add(const uint8_t* codes, const uint8_t* const* tables, int column, int columns,
                    Sums<queries>& sum) {
        if (norm && column == columns - 1)
            look_up<32>(codes, tables, column * 32, sum);
        else
            look_up_nibbles(codes, tables, column * 32, sum);
    }
};

void quantize(const float* table, int64_t size, float least, float scale, uint8_t* out) {
    int32_t whole[256];
    for (int64_t j = 0; j < size; j++) {
        const float v = (table[j] - least) * scale;
        whole[j] = static_cast<int32_t>(v < 255.f ? v : 255.f);
    }
    for (int64_t j = 0; j < size; j++) out[j] = static_cast<uint8_t>(whole[j]);
}

int count_at_most(const uint8_t* sums, int n, uint8_t limit) {
    int count = 0;
    for (int i = 0; i < n; i++) count += sums[i] <= limit;
    return count;
}

}  // namespace
}  // namespace annvq
