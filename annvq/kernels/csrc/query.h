// One query's scan over superblocks of byte codes: quantized tables, a threshold, and the k best hits so far.
//
// Layout: superblocks of 512 vectors, [superblock][column][512] bytes; the tail is padded. With norms of
// either kind the last column holds a byte of the norm. Per query every table, less its minimum, is floored
// to bytes with one scale, so that a saturating byte sum is a lower bound of the score; only lanes whose
// bound reaches the k-th best are scored in float, in the contract's order.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "layout.h"

namespace annvq {

// masks[8]: bit set where the saturating sum of tables (columns, 256) over a superblock is <= threshold. True
// if any is.
using BlockFilter = bool (*)(const uint8_t* block, int columns, const uint8_t* tables, uint8_t threshold,
                             uint64_t* masks);
// The least of size >= 1 entries; NaN if one is NaN.
using TableLeast = float (*)(const float* table, int64_t size);
// out[j] = floor(min((table[j] - least) * scale, 255)).
using TableQuantize = void (*)(const float* table, int64_t size, float least, float scale, uint8_t* out);

struct BlockKernels {
    BlockFilter filter;
    TableLeast least;
    TableQuantize quantize;
};
extern const BlockKernels vbmi_block_kernels;
const BlockKernels* block_kernels();  // of the SIMD level in use; nullptr where it has none

// Vectors that lie together, by one Layout. Codes must be below the tables' K.
struct Segment {
    const uint8_t* codes;  // superblocks(n) superblocks
    int64_t n;
    const int64_t* ids = nullptr;  // (n,), or nullptr: first_id + row
    int64_t first_id = 0;
    const uint64_t* live = nullptr;  // 8 words a superblock: bit set = may be returned; nullptr: all n rows
    // Float norms (n,): the norm column then holds bytes b with norm_low + norm_step * b <= norms_f32[i].
    const float* norms_f32 = nullptr;
    float norm_low = 0, norm_step = 0;
};

// For float norms: the range of finite norms (n,), and the byte of a norm in a range (its low at most the
// norm; above the range 255).
struct NormRange {
    float low, step;
};
NormRange norm_range(const float* norms, int64_t n);
uint8_t norm_byte(float norm, NormRange range);

// A query's tables; the memory must outlive the Query.
struct QueryTables {
    const Layout& layout;
    const float* luts;  // (M, K), K <= 256, in the codes' own order (not relabelled)
    int64_t K;
    const float* norm_levels = nullptr;  // (256,) where layout.norm() is `levels`
};

class Query {
  public:
    // std::invalid_argument on NaN or -inf in the tables.
    Query(const QueryTables& tables, const BlockKernels& kernels, int64_t k);

    // Offers the live rows of superblocks [first, last) of a segment; bias is added to each score last.
    // std::invalid_argument on a bias of NaN or -inf.
    void scan(const Segment& segment, float bias, int64_t first, int64_t last);
    // Takes what another Query over the same tables has found elsewhere.
    void merge(Query&& other);
    // (k,) each, ordered by (distance, id), padded with +inf and -1. Ends the query.
    void write(float* distances, int64_t* ids);
    // The k-th best distance so far, +inf before there are k.
    float worst() const { return worst_; }

  private:
    using Hit = std::pair<float, int64_t>;  // ordered by (distance, id)

    bool enter(const Segment& segment, float bias);
    void scan_block(int64_t block);
    void offer(const uint8_t* codes, const uint64_t* masks, int64_t base);
    float score(const uint8_t* codes, int64_t row) const;
    void push(const Hit& hit);
    bool full() const { return static_cast<int64_t>(heap_.size()) == k_; }
    double gap() const;
    void tighten();
    void quantize(float scale);

    const Layout& layout_;
    QueryTables t_;
    const BlockKernels* kernels_;
    int64_t k_;
    int columns_;
    std::vector<uint8_t> bytes_;  // (columns, 256), as codes are stored
    std::vector<float> least_;    // of each codebook, then of norm_levels
    std::vector<Hit> heap_;
    double tables_least_ = 0, tables_magnitude_ = 0;

    const Segment* segment_ = nullptr;  // during scan()
    float bias_ = 0, norm_low_ = 0, norm_step_ = 0;
    double least_sum_ = 0, magnitude_ = 0, scaled_for_ = 0;
    float worst_ = kInfinity;
    uint8_t threshold_ = 254;
    bool entered_ = false, everything_ = true, closed_ = false, hopeless_ = false;
    static constexpr float kInfinity = __builtin_inff();
};

// Several queries (with a bias each) over superblocks [first, last) of a segment in one pass.
void scan_together(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last);

}  // namespace annvq
