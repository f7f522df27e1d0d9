// Centroids in bytes: their products with queries in bytes, a quarter of the work, bound all scores, so that
// only the few lists that may be among the nearest are compared in float32.
#pragma once
#include <cstdint>
#include <vector>

#include "coarse/kernels.h"

namespace annvq {

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

    BytesView view() const;
};

ByteCentroids byte_centroids(const float* centroids, int64_t nlist, int32_t dim);

}  // namespace annvq
