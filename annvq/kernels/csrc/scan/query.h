// One query's scan over superblocks of byte codes: quantized tables, a threshold, and the k best hits so far.
//
// A byte sum bounds a row's score from below (scan/byte_tables.h); only rows whose bound reaches the k-th
// best are scored in float, in the contract's order. Which of a level's filters does the bounding is chosen
// by what each lets through.
#pragma once
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "scan/best.h"
#include "scan/byte_tables.h"
#include "scan/kernels.h"
#include "scan/layout.h"
#include "scan/segment.h"
#include "scan/waiting.h"

namespace annvq {

constexpr int64_t kGroup = 32;           // queries that share a pass over codes, at most
constexpr int64_t kPartBytes = 1 << 18;  // of codes that are worth waking a thread for

class Query {
  public:
    // std::invalid_argument on NaN or -inf in the tables.
    Query(const QueryTables& tables, const ScanKernels& kernels, int64_t k);

    // Offers the live rows of superblocks [first, last) of a segment; bias is added to each score last.
    // std::invalid_argument on a bias of NaN or -inf. The segment must last until finish(), and its
    // superblocks be offered in their order.
    void scan(const Segment& segment, float bias, int64_t first, int64_t last);
    // The least bias that further scans will bring: tables are made to last until then.
    void expect(float bias) { expected_bias_ = bias; }
    // Others scan other parts for the same query: a limit that one of them has found holds for all.
    void share(std::atomic<float>* limit) { shared_ = limit; }
    // Takes what another Query over the same tables has found elsewhere.
    void merge(Query&& other);
    // Brings close what write() will read.
    void finish() {
        score_waiting();
        best_.prefetch();
    }
    // (k,) each, ordered by (distance, id), padded with +inf and -1. Ends the query.
    void write(float* distances, int64_t* ids);
    int columns() const { return columns_; }
    const ScanKernels& kernels() const { return kernels_; }

    // Several queries, each with a bias and at most kGroup of them, over superblocks [first, last) of a
    // segment. Codes ahead are fetched once for all.
    static void scan_tile(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                          int64_t first, int64_t last, int64_t ahead);

  private:
    using Scorer = void (Query::*)(int64_t, const uint32_t*, int, float*) const;
    bool begin(const Segment& segment, float bias);
    void end(int64_t from, int64_t to);
    bool enter(const Segment& segment, float bias);
    // Whether a filter looks through what comes next.
    bool filters() const { return !everything_ && !closed_ && !segment_->sparse; }
    static int64_t scan_two(Query* const both[2], int64_t from, int64_t end, int64_t ahead);
    void take(int64_t block, int64_t rows, FilteredRows* found);
    void scan_rows(int64_t from, int64_t end, int64_t ahead);
    void tell_limit();
    int64_t run_end(int64_t at, int64_t end) const;
    void offer_all(int64_t from, int64_t to);
    void offer_live(int64_t block);
    void keep_allowed(int64_t base, FilteredRows* found) const;
    void offer(int64_t block, FilteredRows* found);
    void offer_found(int64_t block, FilteredRows* found);
    void score_waiting();
    void settle(int64_t block, uint32_t* rows, const uint8_t* sums, int count);
    int score_lowest(int64_t block, uint32_t* rows, const uint8_t* sums, int count);
    void add(int64_t block, const uint32_t* rows, int count);
    float completed(float sum, int64_t block, uint32_t row) const;
    void score_together(int64_t block, const uint32_t* rows, int count, float* out) const;
    template <bool nibbles, bool labels>
    void score(int64_t block, const uint32_t* rows, int count, float* out) const;
    // What a row that a filter lets through costs: its sum says of most that they need not be scored, of
    // fewer where norms are added.
    double row_ns() const { return (layout_.norm() == NormKind::none ? 8 : 12) + layout_.M() / 8.0; }
    double widened(double raw) const;
    double gap() const;
    void tighten();
    void choose_filter(int filter);
    void reconsider_filter(int64_t first, int64_t last);

    const Layout& layout_;
    QueryTables t_;
    const ScanKernels& kernels_;
    int64_t k_;
    int columns_;
    Scorer scorer_;
    ByteTables tables_;
    bool hopeless_;  // a table of +inf only: no score is finite
    Best best_;

    int64_t seen_ = 0;  // rows
    WaitingRows waiting_;
    int64_t waiting_since_ = 0;  // rows seen when none waited
    std::atomic<float>* shared_ = nullptr;

    // What the segment at hand makes of the tables.
    const Segment* segment_ = nullptr;
    double expected_bias_ = std::numeric_limits<double>::infinity();
    float bias_ = 0, norm_low_ = 0, norm_step_ = 0;
    double least_sum_ = 0, magnitude_ = 0;
    bool entered_ = false, closed_ = false;  // closed: no row can enter any more

    // The filter, once there is a threshold.
    bool everything_ = true;    // score all rows
    uint8_t threshold_ = 254;   // of sums
    int64_t filtered_ = 0;      // rows since the last check of the filter
    int64_t let_through_ = 0;   // and how many of them were scored
    int64_t quantized_at_ = 0;  // filtered_ when the tables were made
    int64_t next_check_;        // rows seen by then
    int64_t lowest_again_ = 0;  // rows seen until lowest sums are scored first again
};

// Several queries (with a bias each) over superblocks [first, last) of a segment in one pass.
void scan_together(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last);

}  // namespace annvq
