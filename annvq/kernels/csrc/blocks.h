// Blocked 8-bit codes and their scan: exact ADC that looks at quantized bounds first.
//
// Layout: superblocks of 512 vectors, [superblock][column][512] bytes; the tail is padded with zeros. With
// norms, the last column is the norm's level. Per query every table, less its minimum, is floored to bytes
// with one scale, so that a saturating byte sum is a lower bound of the score; only lanes whose bound reaches
// the k-th best are scored in float.
#pragma once
#include <cstdint>

namespace annvq {

constexpr int64_t kBlock = 512;

// masks[8]: bit set where the saturating sum of tables (columns, 256) over a superblock is <= threshold. True
// if any is.
using BlockFilter = bool (*)(const uint8_t* block, int columns, const uint8_t* tables, uint8_t threshold,
                             uint64_t* masks);
// The least of size >= 1 entries; NaN if one is NaN.
using TableLeast = float (*)(const float* table, int64_t size);
// out[j] = floor(min((table[j] - least) * scale, 255)).
using TableQuantize = void (*)(const float* table, int64_t size, float least, float scale, uint8_t* out);

struct BlockKernels {
    BlockFilter filter;
    TableLeast least;
    TableQuantize quantize;
};
extern const BlockKernels vbmi_block_kernels;

struct Blocks {
    const uint8_t* codes;
    int64_t n;
    int32_t M;                 // codebooks; one more column where norm_levels is set
    const float* norm_levels;  // (256,) or nullptr
    const int64_t* ids;        // (n,) or nullptr: row numbers
    const uint8_t* keep;       // (n,) 0 = skip, or nullptr
};

void pack_blocks(const uint8_t* codes, int64_t n, int64_t columns, uint8_t* out);
// As scan_topk. std::invalid_argument on NaN or -inf in tables.
void scan_blocks(const Blocks& blocks, const BlockKernels& kernels, const float* luts, int64_t K,
                 const float* bias, int64_t nq, int64_t k, float* distances, int64_t* ids, int threads);

}  // namespace annvq
