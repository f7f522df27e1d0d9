// What an instruction set with products of bytes gives coarse search.
#pragma once
#include <cstdint>

namespace annvq {

constexpr int kByteLanes = 16;  // centroids side by side
constexpr int64_t kMostGroups = 1024;

// Centroids in bytes (coarse/bytes.h), as pointers alone (simd/pick.h).
struct BytesView {
    int32_t dim, quads;
    int64_t padded;
    float step;
    const float *mean, *norms;
    const int32_t* start;
    const int8_t* packed;
};

struct CoarseKernels {
    // Bytes of a query (quads * 4,), as `scores` of the level takes them (signed, or plus 64 or 128), how
    // long its step is, ||q - mean||, and the length of the bytes' error.
    void (*quantize)(const BytesView&, const float* query, uint8_t* bytes, float* step, float* length,
                     float* error);
    // out[r][i] = norms[i] - 2 * step * steps[r] * <bytes of r, bytes of i>; rows of `padded`.
    void (*scores)(const BytesView&, const uint8_t* queries, const float* steps, int64_t rows, float* out);
    // A value that at least `count` of the values (padded,) do not exceed, and not many more: about the
    // count-th of the minima of `groups` groups, a multiple of 16 and at most kMostGroups.
    float (*bound)(const float* values, int64_t padded, int64_t count, int64_t groups);
    // Where values (padded,) are at most `limit`, ascending; returns how many. Writes up to 16 places
    // further.
    int64_t (*at_most)(const float* values, int64_t padded, float limit, int32_t* found);
    // ||x - row||^2 of chosen rows (., dim), each one float32 sum in dimension order.
    void (*distances)(const float* rows, int32_t dim, const float* x, const int32_t* chosen, int64_t count,
                      float* out);
    // The rank of each of n values (no NaN), the first of equal ones lower; out may be written to up to the
    // next multiple of 16. In time n * n.
    void (*ranks)(const float* values, int64_t n, int32_t* out);
};
const CoarseKernels* coarse_kernels();  // of the SIMD level in use; nullptr: it has none

}  // namespace annvq
