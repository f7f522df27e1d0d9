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

// Rows [at, at + kStep), with their sums, where these are at most the limit, but for those outside
// [first, last).
inline void append(const uint8_t* sums, Bytes limit, int64_t at, int64_t first, int64_t last,
                   FilteredRows* found) {
    uint64_t bits[kWords] = {};
    for (int b = 0; b < kAtOnce; b++)
        bits[kWidth * b / 64] |= at_most(load(sums + kWidth * b), limit) << (kWidth * b % 64);
    int count = found->count;
    for (int w = 0; w < kWords; w++, at += 64) {
        uint64_t set = bits[w];
        if (last < at + 64) set = last > at ? set & ((uint64_t{1} << (last - at)) - 1) : 0;
        if (first > at) set = first < at + 64 ? set >> (first - at) << (first - at) : 0;
        const int end = count + __builtin_popcountll(set);
        const auto put = [&](int to) {
            const int row = set ? __builtin_ctzll(set) : 0;
            found->rows[to] = static_cast<uint16_t>(at + row), found->sums[to] = sums[64 * w + row];
            set &= set - 1;
        };
        // Two without asking whether there are so many: what is written past the end is written over.
        put(count), put(count + 1);
        for (int to = count + 2; to < end; to++) put(to);
        count = end;
    }
    found->count = count;
}

// Stores the sums of the kStep rows from `codes` on, as `add(column, codes, sum)` adds them up. Whether one
// of them is at most the limit.
template <bool fetch, class Add>
inline bool step(const uint8_t* codes, const FilterTables& t, Bytes limit, Add add, uint8_t* sums) {
    Bytes sum[kAtOnce], kept[kMaxGroupBits][kAtOnce];
    for (int g = 0, from = 0, to; g < t.groups; from = to, g++) {
        to = t.groups > 1 ? t.ends[g] : t.columns;
        for (auto& s : sum) s = splat(0);
        for (int c = from; c < to; c++) {
            const uint8_t* own = codes + c * kSuperblock;
            if constexpr (fetch)
                for (int l = 0; l < kStep; l += 64) __builtin_prefetch(own + t.ahead + l, 0, 2);
            add(c, own, sum);
        }
        // Means of twice as many groups, as soon as there are two.
        int level = 0;
        for (; g >> level & 1; level++)
            for (int b = 0; b < kAtOnce; b++) sum[b] = mean(sum[b], kept[level][b]);
        if (g + 1 < t.groups)
            for (int b = 0; b < kAtOnce; b++) kept[level][b] = sum[b];
    }
    for (int b = 0; b < kAtOnce; b++) store(sums + kWidth * b, sum[b]);
    return at_most(lesser(lesser(sum[0], sum[1]), lesser(sum[2], sum[3])), limit) != 0;
}

// Looks up as many superblocks as there is room for, then picks rows out of the steps that hold some: asked
// step by step whether there are any, a processor would often guess wrong.
template <bool fetch, class Add>
inline int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t,
                   uint8_t threshold, FilteredRows* found, Add add) {
    const Bytes limit = splat(threshold);
    alignas(64) uint8_t sums[kRoom];
    int64_t at = first / kStep * kStep;
    while (at < last && found->count <= kRoom - kSuperblock) {
        const int64_t room = (kRoom - found->count) / kSuperblock, start = at;
        const int64_t end = at / kSuperblock * kSuperblock + room * kSuperblock;
        int64_t holding[kRoom / kStep];
        int count = 0;
        for (; at < last && at < end; at += kStep) {
            const uint8_t* codes = blocks + at / kSuperblock * t.columns * kSuperblock + at % kSuperblock;
            holding[count] = at;
            count += step<fetch>(codes, t, limit, add, sums + (at - start));
        }
        for (int i = 0; i < count; i++)
            append(sums + (holding[i] - start), limit, holding[i], first, last, found);
    }
    return at < last ? at : last;
}

template <class Add>
inline int64_t run(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& t,
                   uint8_t threshold, FilteredRows* found, Add add) {
    return t.ahead ? run<true>(blocks, first, last, t, threshold, found, add)
                   : run<false>(blocks, first, last, t, threshold, found, add);
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
