// Coarse search: the centroids nearest to each query, by comparing all of them.
//
// Each comparison is one float32 sum in dimension order without fused multiply-add, sixteen lanes across
// centroids at every SIMD level: which lists are probed, and their scores, never depend on batch, threads or
// SIMD level.
#pragma once
#include <cstdint>

#include "encode.h"

namespace annvq {

class CoarseSearch {
  public:
    CoarseSearch(const float* centroids, int32_t nlist, int32_t dim);

    int32_t nlist() const { return books_.sizes[0]; }
    int32_t dim() const { return books_.width; }

    // lists, scores: (nq, nprobe), ordered by (score, list); a score is sum (q - c)^2, or -<q, c>.
    void probe(const float* queries, int64_t nq, int64_t nprobe, bool squared, int32_t* lists, float* scores,
               int threads) const;

  private:
    EncoderBooks books_;
};

}  // namespace annvq
