// What an instruction set gives the scan: byte tables, and filters that look up whole superblocks in them.
#pragma once
#include <cstdint>

#include "scan/layout.h"

namespace annvq {

// The least of size >= 1 entries; NaN if one is NaN.
using TableLeast = float (*)(const float* table, int64_t size);
// out[j] = floor(min((table[j] - least) * scale, 255)) for j < size <= 256. May write up to the next multiple
// of 16.
using TableQuantize = void (*)(const float* table, int64_t size, float least, float scale, uint8_t* out);
// A filter's table of `entries` bytes from 256: stored byte b stands for meaning[b] (nullptr: b), and
// entry j is the least over stored bytes whose low bits are j. In whatever form the level's filters want.
using TableArrange = void (*)(const uint8_t* bytes, const uint8_t* meaning, int entries, uint8_t* out);
constexpr int kRoom = 2048;
constexpr int64_t kRun = 64;
constexpr int64_t kFilterStep = 64;
// Rows, numbered from a superblock's first, that a filter let through, and their sums. What lies past count
// may be written over.
struct FilteredRows {
    static constexpr int kSlack = 64;
    uint16_t rows[kRoom + kSlack];
    uint8_t sums[kRoom + kSlack];
    int count = 0;
};
// What a filter adds up: tables of bytes, (columns, entries), group by group of columns. The sum of a group
// is one of bytes and saturates at 255. A row's sum is that of the only group, or the mean of all groups'
// sums: means of neighbours, of these, and so on, each rounded up.
struct FilterTables {
    const uint8_t* bytes;
    int columns;
    int groups = 1;                  // a power of two
    const uint16_t* ends = nullptr;  // the column that each group ends before, where there are several
    int64_t ahead = 0;  // unless 0, codes so many bytes further on are fetched to the first cache
};
constexpr int kMaxGroupBits = 6;  // 64 groups
// Looks through rows [first, last) of superblocks for those whose sum is at most threshold, and appends them;
// ends early, after a whole superblock, once fewer than 512 places are left. Returns the row that it came to.
// first is a multiple of kFilterStep; last is at most kRun superblocks.
using Filter = int64_t (*)(const uint8_t* blocks, int64_t first, int64_t last, const FilterTables& tables,
                           uint8_t threshold, FilteredRows* found);

// The same for two queries at once, whose groups of columns end alike: what is loaded, and what is made of
// codes before they are looked up, serves both. Ends early where either has fewer than 512 places left.
using FilterOfTwo = int64_t (*)(const uint8_t* blocks, int64_t first, int64_t last,
                                const FilterTables* const tables[2], const uint8_t thresholds[2],
                                FilteredRows* const found[2]);

// How many of n sums are at most limit.
using CountAtMost = int (*)(const uint8_t* sums, int n, uint8_t limit);

// out[i] = ((0 + e_0) + e_1) + … of `count` rows, numbered from the first of superblocks `stride` bytes
// apart; e_m is a row's entry in table m of M, of sixteen floats each. Codes are nibbles.
using ScoreNibbles = void (*)(const uint8_t* blocks, int64_t stride, const uint32_t* rows, int count,
                              const float* luts, int M, float* out);

struct PooledFilter {
    int entries;
    Filter run;
    FilterOfTwo run_two = nullptr;  // where that is faster
};

struct ScanKernels {
    TableLeast least;
    TableQuantize quantize;
    TableArrange arrange;
    CountAtMost count_at_most;
    const PooledFilter* filters;  // fewest entries first, the last has 256
    int filter_count;             // 0: this level scores everything in float
    int first_choice;             // the filter to begin with
    // For nibbles, where there are filters: rows of 32 bytes, low nibbles' table and high nibbles'; a norm
    // column's row is 32 entries arranged.
    Filter nibbles, nibbles_norm;
    ScoreNibbles score_nibbles;                                     // nullptr where the level has none
    FilterOfTwo two_nibbles = nullptr, two_nibbles_norm = nullptr;  // where that is faster
    bool in_order = false;  // filters read a superblock's codes in the order in which they lie
};

const ScanKernels& scan_kernels();  // of the SIMD level in use

}  // namespace annvq
