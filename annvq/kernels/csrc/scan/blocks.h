// The scan of one segment by a batch of queries.
#pragma once
#include <cstdint>

#include "scan/query.h"

namespace annvq {

struct Blocks {
    Segment segment;
    const Layout& layout;
    const float* norm_levels;  // (256,) where the layout's norm is `levels`
    const uint8_t* keep;       // (n,) 0 = skip, or nullptr
};

// The k lowest scores of each query, by (distance, id), padded with +inf and -1. std::invalid_argument on NaN
// or -inf in tables.
void scan_blocks(const Blocks& blocks, const ScanKernels& kernels, const float* luts, int64_t K,
                 const float* bias, int64_t nq, int64_t k, float* distances, int64_t* ids, int threads);

}  // namespace annvq
