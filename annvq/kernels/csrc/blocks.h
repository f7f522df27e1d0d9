// Packing row-major byte codes into superblocks, and their scan as one segment.
#pragma once
#include <cstdint>

#include "query.h"

namespace annvq {

struct Blocks {
    Segment segment;
    int32_t M;
    NormKind norm;
    const float* norm_levels;  // (256,) where norm is `levels`
    const uint8_t* keep;       // (n,) 0 = skip, or nullptr
};

void pack_blocks(const uint8_t* codes, int64_t n, int64_t columns, uint8_t* out);
// As scan_topk. std::invalid_argument on NaN or -inf in tables.
void scan_blocks(const Blocks& blocks, const BlockKernels& kernels, const float* luts, int64_t K,
                 const float* bias, int64_t nq, int64_t k, float* distances, int64_t* ids, int threads);

}  // namespace annvq
