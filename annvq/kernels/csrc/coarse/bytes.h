// Centroids in bytes: their products with queries in bytes, a quarter of the work, bound all scores, so that
// only the few lists that may be among the nearest are compared in float32.
#pragma once
#include <cstdint>
#include <vector>

namespace annvq {

constexpr int kByteLanes = 16;  // centroids side by side
constexpr int64_t kMostGroups = 1024;

// Less their mean: c - mean = step * byte + an error of at most `error` in length.
struct ByteCentroids {
    int32_t dim = 0, quads = 0;  // quads: groups of four dimensions, the last filled up with zeros
    int64_t padded = 0;          // centroids, in whole panels of four times sixteen
    float step = 0;
    double widest = 0, error = 0;  // the largest ||c - mean||, and of its bytes' error
    std::vector<float> mean;       // (quads * 4,)
    std::vector<float> norms;      // (padded,) ||c - mean||^2, +inf in the padding
    std::vector<int32_t> start;    // (padded,) -128 * sum of bytes, as queries are stored plus 128
    std::vector<int8_t> packed;    // [padded / 16][quads][16][4]
};

ByteCentroids byte_centroids(const float* centroids, int64_t nlist, int32_t dim);

// What a SIMD level with products of bytes implements.
struct ByteKernels {
    // Bytes of a query (quads * 4,) plus 128, how long its step is, ||q - mean||, and the length of the
    // bytes' error.
    void (*quantize)(const ByteCentroids&, const float* query, uint8_t* bytes, float* step, float* length,
                     float* error);
    // out[r][i] = norms[i] - 2 * step * steps[r] * <bytes of r, bytes of i>; rows of `padded`.
    void (*scores)(const ByteCentroids&, const uint8_t* queries, const float* steps, int64_t rows,
                   float* out);
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
extern const ByteKernels kBytesVnni;
const ByteKernels* byte_kernels();  // of the SIMD level in use; nullptr: it has none

}  // namespace annvq
