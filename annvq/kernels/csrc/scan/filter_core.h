// Filters over superblocks, and what else a level with byte look-ups gives the scan; compiled once per
// instruction set (simd/pick.h). A file that includes this one has defined, in the same namespace:
//
//     Bytes, kWidth                        bytes side by side, and how many
//     kAtOnce                              sums that stay in registers, of kWidth bytes each
//     load store splat mean lesser at_most      on Bytes; means are rounded up, at_most gives a bit for each
//     byte look_up<entries>, look_up_nibbles    sums += a table's bytes at the codes of kAtOnce * kWidth
//     vectors
#pragma once
#include "scan/kernels.h"

namespace annvq {
namespace {

constexpr int kStep = kAtOnce * kWidth;  // rows looked up together
constexpr int kWords = kStep / 64;

// Rows that have been looked up and whose sums are at most the limit, 64 at a time.
struct Found {
    uint64_t bits;
    int64_t at;  // the row of bit 0
};

// Of the rows [at, at + kStep) but those outside [first, last); returns the end of what it wrote.
inline Found* find(const uint8_t* sums, Bytes limit, int64_t at, int64_t first, int64_t last, Found* out) {
    uint64_t bits[kWords] = {};
    for (int b = 0; b < kAtOnce; b++)
        bits[kWidth * b / 64] |= at_most(load(sums + kWidth * b), limit) << (kWidth * b % 64);
    for (int w = 0; w < kWords; w++, at += 64) {
        uint64_t set = bits[w];
        if (last < at + 64) set = last > at ? set & ((uint64_t{1} << (last - at)) - 1) : 0;
        if (first > at) set = first < at + 64 ? set >> (first - at) << (first - at) : 0;
        *out = {set, at};
        out += set != 0;  // no branch: no guess
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

// sum = the bytes of columns [from, to), as `add(column, codes, sum)` adds them up.
template <bool fetch, class Add>
inline void add_up(const uint8_t* codes, int from, int to, const FilterTables& t, Add add, Bytes* sum) {
    for (int b = 0; b < kAtOnce; b++) sum[b] = splat(0);
#pragma GCC unroll 2
    for (int c = from; c < to; c++) {
        const uint8_t* own = codes + c * kSuperblock;
        if constexpr (fetch)
            for (int l = 0; l < kStep; l += 64) __builtin_prefetch(own + t.ahead + l, 0, 2);
        add(c, own, sum);
    }
}

// sum = the mean of all groups' sums. Means of twice as many groups are made as soon as there are two.
template <bool fetch, class Add>
inline void add_up_groups(const uint8_t* codes, const FilterTables& t, Add add, Bytes* sum) {
    Bytes kept[kMaxGroupBits][kAtOnce];
    for (int g = 0, from = 0; g < t.groups; from = t.ends[g++]) {
        add_up<fetch>(codes, from, t.ends[g], t, add, sum);
        int level = 0;
        for (; g >> level & 1; level++)
            for (int b = 0; b < kAtOnce; b++) sum[b] = mean(sum[b], kept[level][b]);
        if (g + 1 == t.groups) return;
        for (int b = 0; b < kAtOnce; b++) kept[level][b] = sum[b];
    }
}

// Stores the sums of the kStep rows from `codes` on. Whether one of them is at most the limit.
template <bool fetch, bool several, class Add>
inline bool step(const uint8_t* codes, const FilterTables& t, Bytes limit, Add add, uint8_t* sums) {
    Bytes sum[kAtOnce];
    if constexpr (several)
        add_up_groups<fetch>(codes, t, add, sum);
    else
        add_up<fetch>(codes, 0, t.columns, t, add, sum);
    for (int b = 0; b < kAtOnce; b++) store(sums + kWidth * b, sum[b]);
    return at_most(lesser(lesser(sum[0], sum[1]), lesser(sum[2], sum[3])), limit) != 0;
}

// Looks up as many superblocks as there is room for, then picks rows out of those steps that hold some, and
// out of their words: asked step by step whether there are any, a processor would often guess wrong.
template <bool fetch, bool several, class Add>
inline int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& tables,
                   uint8_t threshold, FilteredRows* found, Add add) {
    const FilterTables t = tables;  // a copy, which stores of bytes cannot change
    const Bytes limit = splat(threshold);
    alignas(64) uint8_t sums[kRoom];
    int64_t at = first / kStep * kStep;
    while (at < last && found->count <= kRoom - kSuperblock) {
        const int64_t room = (kRoom - found->count) / kSuperblock, start = at;
        int64_t end = at / kSuperblock * kSuperblock + room * kSuperblock;
        if (last < end) end = last;
        int64_t holding[kRoom / kStep];
        int count = 0;
        while (at < end) {
            const int64_t block = at / kSuperblock, block_end = (block + 1) * kSuperblock;
            const uint8_t* codes = blocks + block * t.columns * kSuperblock + at % kSuperblock;
            for (; at < block_end && at < end; at += kStep, codes += kStep) {
                holding[count] = at;
                count += step<fetch, several>(codes, t, limit, add, sums + (at - start));
            }
        }
        Found words[kRoom / 64 + 1], *words_end = words;
        for (int i = 0; i < count; i++)
            words_end = find(sums + (holding[i] - start), limit, holding[i], first, last, words_end);
        append(words, words_end, sums, start, found);
    }
    return at < last ? at : last;
}

template <class Add>
inline int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t,
                   uint8_t threshold, FilteredRows* found, Add add) {
    if (t.groups > 1)
        return t.ahead ? run<true, true>(blocks, first, last, t, threshold, found, add)
                       : run<false, true>(blocks, first, last, t, threshold, found, add);
    return t.ahead ? run<true, false>(blocks, first, last, t, threshold, found, add)
                   : run<false, false>(blocks, first, last, t, threshold, found, add);
}

template <int entries>
int64_t filter(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t, uint8_t threshold,
               FilteredRows* found) {
    return run(blocks, first, last, t, threshold, found, [&](int c, const uint8_t* codes, Bytes* sum) {
        look_up<entries>(codes, t.bytes + c * entries, sum);
    });
}

// The last column holds bytes, all others two codes each.
template <bool norm>
int64_t filter_nibbles(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t,
                       uint8_t threshold, FilteredRows* found) {
    return run(blocks, first, last, t, threshold, found, [&](int c, const uint8_t* codes, Bytes* sum) {
        if (norm && c == t.columns - 1)
            look_up<32>(codes, t.bytes + c * 32, sum);
        else
            look_up_nibbles(codes, t.bytes + c * 32, sum);
    });
}

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
