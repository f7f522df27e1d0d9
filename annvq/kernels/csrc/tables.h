// Distance tables: luts[q][m][k] from queries and codebooks, entry by entry in dimension order.
//
// Every entry is one float32 sum over its dimensions, first to last, without fused multiply-add; SIMD lanes
// run across entries, never inside a sum. So a table never depends on the SIMD level, the batch or the
// threads.
#pragma once
#include <cstdint>

namespace annvq {

struct Codebooks {
    const float* entries;    // (sum of sizes, width), codebook after codebook
    const int32_t* sizes;    // (M,) entries per codebook
    const int32_t* offsets;  // (M,) first query dimension that codebook m sees
    int32_t M, width;
};

// l2: sum (q - c)^2;  otherwise: scale * sum q * c.  out is (nq, M, K), padded with +inf where sizes[m] < K.
void build_tables(const float* queries, int64_t nq, int64_t dim, const Codebooks& books, bool l2, float scale,
                  int64_t K, float* out, int threads);

// ||x||^2 of each row, accumulated in double in dimension order, rounded once to float32.
void squared_norms(const float* x, int64_t n, int64_t dim, float* out, int threads);

}  // namespace annvq
