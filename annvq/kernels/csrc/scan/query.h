// One query's scan over superblocks of byte codes: quantized tables, a threshold, and the k best hits so far.
//
// Every table, less its minimum, is floored to bytes with one scale, so that a saturating byte sum is a lower
// bound of the score; only lanes whose bound reaches the k-th best are scored in float, in the contract's
// order. Which of a level's filters does the bounding is chosen by what each lets through.
#pragma once
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "scan/best.h"
#include "scan/filters.h"
#include "scan/layout.h"

namespace annvq {

constexpr int64_t kGroup = 16;           // queries that share a pass over codes
constexpr int64_t kPartBytes = 1 << 18;  // of codes that are worth waking a thread for

// Vectors that lie together, by one Layout. Codes must be below the tables' K.
struct Segment {
    const uint8_t* codes;  // superblocks(n) superblocks
    int64_t n;
    const int64_t* ids = nullptr;  // (n,), or nullptr: first_id + row
    int64_t first_id = 0;
    const uint64_t* live = nullptr;  // 8 words a superblock: bit set = may be returned; nullptr: all n rows
    bool sparse = false;             // so few are live that whole superblocks hold next to none
    // Unless nullptr, an id may be returned where it is below allowed_size and allowed[id] is not 0.
    const uint8_t* allowed = nullptr;
    int64_t allowed_size = 0;
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
    const float* luts;  // (M, K), K <= 256
    int64_t K;
    const float* norm_levels = nullptr;  // (256,) where layout.norm() is `levels`
    bool by_stored_byte = false;  // luts' entries are in the order of stored bytes, else of the codes' own
};

class Query {
  public:
    // std::invalid_argument on NaN or -inf in the tables.
    Query(const QueryTables& tables, const BlockKernels& kernels, int64_t k);

    // Offers the live rows of superblocks [first, last) of a segment; bias is added to each score last.
    // std::invalid_argument on a bias of NaN or -inf.
    void scan(const Segment& segment, float bias, int64_t first, int64_t last);
    // The least bias that further scans will bring: tables are made to last until then.
    void expect(float bias) { expected_bias_ = bias; }
    // Others scan other parts for the same query: a limit that one of them has found holds for all.
    void share(std::atomic<float>* limit) { shared_ = limit; }
    // Takes what another Query over the same tables has found elsewhere.
    void merge(Query&& other);
    // Brings close what write() will read.
    void finish() { best_.prefetch(); }
    // (k,) each, ordered by (distance, id), padded with +inf and -1. Ends the query.
    void write(float* distances, int64_t* ids);
    int columns() const { return columns_; }

  private:
    using Scorer = void (Query::*)(int64_t, const uint16_t*, int, float*) const;
    struct alignas(64) Line {
        uint8_t bytes[64];
    };

    bool enter(const Segment& segment, float bias);
    void scan_rows(int64_t from, int64_t end);
    void tell_limit();
    int64_t run_end(int64_t at, int64_t end) const;
    void offer_all(int64_t from, int64_t to);
    void offer_live(int64_t block);
    void keep_allowed(int64_t base, FilteredRows* found) const;
    void narrow(FilteredRows* found) const;
    void offer(int64_t block, FilteredRows* found, bool bounded);
    template <bool nibbles, bool labels>
    void score(int64_t block, const uint16_t* rows, int count, float* out) const;
    double row_ns() const { return 4 + layout_.M(); }  // to score a row
    double widened(double raw) const;
    double gap() const;
    uint8_t byte_of(double gap) const;
    bool sums_bound_above() const;
    void tighten();
    void quantize();
    void quantize_column(int column, uint8_t* out) const;
    void reconsider_filter(int64_t first, int64_t last);
    Filter filter() const;
    int entries() const { return split_ ? 32 : kernels_->filters[filter_].entries; }
    uint8_t* tables() { return lines_.data()->bytes; }

    const Layout& layout_;
    QueryTables t_;
    const BlockKernels* kernels_;
    int64_t k_;
    int columns_;
    Scorer scorer_;
    bool split_;                 // nibbles by the level's own filter
    PooledVector<float> least_;  // of each codebook, then of norm_levels
    double tables_least_ = 0, tables_magnitude_ = 0;
    bool hopeless_ = false;  // a table of +inf only: no score is finite
    Best best_;

    int64_t seen_ = 0;  // rows
    std::atomic<float>* shared_ = nullptr;

    // What the segment at hand makes of the tables.
    const Segment* segment_ = nullptr;
    double expected_bias_ = std::numeric_limits<double>::infinity();
    float bias_ = 0, norm_low_ = 0, norm_step_ = 0;
    double least_sum_ = 0, magnitude_ = 0;
    bool entered_ = false, closed_ = false;  // closed: no row can enter any more

    // The filter and its tables, once there is a threshold.
    bool everything_ = true;  // score all rows
    int filter_ = 0, finest_ = 0;
    PooledVector<Line> lines_;  // (columns, entries)
    double scaled_for_ = 0;     // the gap that the tables' 253 stands for
    double bytes_per_gap_ = 0;
    uint8_t threshold_ = 254;
    int64_t filtered_ = 0;      // rows since the last check of the filter
    int64_t let_through_ = 0;   // and how many of them were scored
    int64_t quantized_at_ = 0;  // filtered_ when the tables were made
    int64_t next_check_;        // rows seen by then
};

// Several queries (with a bias each) over superblocks [first, last) of a segment in one pass.
void scan_together(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last);

}  // namespace annvq
