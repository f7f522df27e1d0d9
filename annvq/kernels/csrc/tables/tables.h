// Distance tables: luts[q][m][k] from queries and codebooks, entry by entry in dimension order.
//
// Every entry is one float32 sum over its dimensions, first to last, without fused multiply-add; SIMD lanes
// run across entries, never inside a sum. So a table never depends on the SIMD level, the batch or the
// threads.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "tables/kernels.h"

namespace annvq {

// Codebooks made ready once for many queries.
class TableBuilder {
  public:
    // entries (sum of sizes, width), codebook after codebook; starts (M,): first query dimension codebook m
    // sees.
    TableBuilder(const float* entries, const int32_t* sizes, const int32_t* starts, int64_t M, int64_t width);

    // Whether it was made of these entries, bit for bit.
    bool holds(const float* entries) const;
    int64_t M() const { return static_cast<int64_t>(sizes_.size()); }
    int64_t K() const { return K_; }
    int64_t width() const { return width_; }
    int64_t total() const { return total_; }
    int64_t least_dim() const { return least_dim_; }

    // The same codebooks with entry j of codebook m being order[m * 256 + j] of these, so that tables come
    // out in that order; made once and kept. nullptr where a codebook has not 256 entries.
    std::shared_ptr<const TableBuilder> reordered(const uint8_t* order) const;

    // squared: sum (q - c)^2; otherwise scale * sum q * c. Then offsets (M, K) are added, unless nullptr. out
    // is (nq, M, K), +inf where sizes[m] < K.
    void build(const float* queries, int64_t nq, int64_t dim, bool squared, float scale, const float* offsets,
               float* out, int threads) const;

  private:
    // Where dimension j of entry k of codebook m is in transposed_.
    int64_t place(int64_t m, int64_t k, int64_t j) const;

    std::vector<float> entries_, transposed_;
    std::vector<int32_t> sizes_, starts_;
    std::vector<int64_t> offsets_;  // of each codebook in transposed_
    int64_t K_ = 0, width_, total_ = 0, least_dim_ = 0;
    mutable Mutex reordering_;
    mutable std::vector<uint8_t> order_;
    mutable std::shared_ptr<const TableBuilder> reordered_;
};

// The tables of some queries, to be built when they are wanted.
struct UnbuiltTables {
    const TableBuilder* builder = nullptr;
    const float* queries = nullptr;  // (nq, dim)
    int64_t dim = 0;
    bool squared = false;
    float scale = 1;
    const float* offsets = nullptr;  // (M, K)

    void build(const float* of, int64_t count, float* out, int threads) const {
        builder->build(of, count, dim, squared, scale, offsets, out, threads);
    }
};

// ||x||^2 of each row, accumulated in double in dimension order, rounded once to float32.
void squared_norms(const float* x, int64_t n, int64_t dim, float* out, int threads);

}  // namespace annvq
