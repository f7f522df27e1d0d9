// The loop of coarse search over tiles; compiled once per instruction set (simd/pick.h). A file that includes
// this one has defined, in the same namespace: kRows, queries of a tile; kGroups, groups of centroids of one;
// tile<R>(b, number of the tile's groups, queries, steps, out) for R queries.
#pragma once
#include "coarse/kernels.h"

namespace annvq {
namespace {

void scores(const BytesView& b, const uint8_t* queries, const float* steps, int64_t rows, float* out) {
    const int64_t stride = 4 * b.quads;
    for (int64_t groups = 0; groups < b.padded / (kGroups * kByteLanes); groups++) {
        int64_t r = 0;
        for (; r + kRows <= rows; r += kRows)
            tile<kRows>(b, groups, queries + r * stride, steps + r, out + r * b.padded);
        for (; r < rows; r++) tile<1>(b, groups, queries + r * stride, steps + r, out + r * b.padded);
    }
}

}  // namespace
}  // namespace annvq
