// Coarse search: the centroids nearest to each query, by comparing all of them.
//
// A score is one float32 sum in dimension order without fused multiply-add, sixteen lanes across centroids at
// every SIMD level: which lists are probed, and their scores, never depend on batch, threads or SIMD level.
// Where few of many are wanted and the machine multiplies bytes, squared distances are first bounded so, and
// only lists that may be among the nearest are compared by that sum: the result is the same.
#pragma once
#include <cstdint>
#include <vector>

#include "coarse/bytes.h"
#include "encode/books.h"

namespace annvq {

class CoarseSearch {
  public:
    CoarseSearch(const float* centroids, int32_t nlist, int32_t dim);

    int32_t nlist() const { return books_.sizes[0]; }
    int32_t dim() const { return books_.width; }

    // lists, scores: (nq, nprobe), ordered by (score, list); a score is sum (q - c)^2, or -<q, c>.
    void probe(const float* queries, int64_t nq, int64_t nprobe, bool squared, int32_t* lists, float* scores,
               int threads) const;
    // lists: (n,), the one with the lowest squared distance to each row, the first of equal ones; as `probe`
    // would find it.
    void assign(const float* x, int64_t n, int32_t* lists, int threads) const;

  private:
    struct Scratch;
    template <class Work>
    void for_blocks(int64_t n, int threads, Work&& work) const;

    void products(const float* queries, const std::vector<int64_t>& rows, bool squared, Scratch& s) const;
    template <class Write>
    void probe_floats(const float* queries, const std::vector<int64_t>& rows, int64_t nprobe, bool squared,
                      Scratch& s, Write&& write) const;
    template <class Write>
    void probe_bytes(const float* queries, std::vector<int64_t>& rows, int64_t nprobe, Scratch& s,
                     Write&& write) const;

    EncoderBooks books_;
    ByteCentroids bytes_;
    bool has_bytes_ = false;
};

}  // namespace annvq
