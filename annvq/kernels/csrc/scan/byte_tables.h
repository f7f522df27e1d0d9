// One query's tables in bytes, as a level's filters look them up.
//
// Every table, less its minimum, is floored to bytes with one scale, so that a saturating byte sum is a lower
// bound of the score less all minima.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/pooled.h"
#include "scan/filter_costs.h"
#include "scan/kernels.h"
#include "scan/layout.h"

namespace annvq {

// A query's tables; the memory must outlive whoever is made from them.
struct QueryTables {
    const Layout& layout;
    const float* luts;  // (M, K), K <= 256
    int64_t K;
    const float* norm_levels = nullptr;  // (256,) where layout.norm() is `levels`
    bool by_stored_byte = false;  // luts' entries are in the order of stored bytes, else of the codes' own
};

class ByteTables {
  public:
    // std::invalid_argument on NaN or -inf in the tables.
    ByteTables(const QueryTables& tables, const ScanKernels& kernels);

    // Of all tables: the sum of their minima, +inf where a table is +inf throughout, and of these minima's
    // magnitudes.
    double least_sum() const { return least_sum_; }
    double magnitude() const { return magnitude_; }
    // Whether the level has filters for these codes.
    bool any() const { return split_ || kernels_.filter_count; }
    // Whether a byte sum bounds a score from above too: each entry is less than its byte plus one.
    bool bound_above() const;

    // Makes the tables so that sums of 253 stand for `gap`; norm_step: of the segment's norm bytes, where
    // norms are floats.
    void make(double gap, float norm_step);
    double gap() const { return gap_; }
    // The highest sum of bytes of rows within a gap.
    uint8_t byte_of(double gap) const;
    // A gap that rows with this sum, which bounds scores from above, are within.
    double gap_of(int sum) const;
    // See Filter.
    int64_t filter(const uint8_t* blocks, int64_t first, int64_t last, uint8_t threshold,
                   FilteredRows* found) const {
        return run()(blocks, first, last, columns_, lines_.data()->bytes, threshold, found);
    }
    int count_at_most(const uint8_t* bytes, int n, uint8_t limit) const {
        return kernels_.count_at_most(bytes, n, limit);
    }

    // Filters to choose from, coarsest first: [0, finest()]. None where codes lie two to a byte and the level
    // has a filter for those.
    bool has_choice() const { return !split_; }
    int chosen() const { return filter_; }
    int finest() const { return finest_; }
    double column_ns(int filter) const { return filter_costs(kernels_).column[filter]; }
    void choose(int filter);

  private:
    struct alignas(64) Line {
        uint8_t bytes[64];
    };

    void add_minimum(const float* table, int64_t size);
    void quantize();
    void quantize_column(int column, uint8_t* out) const;
    int entries() const { return split_ ? 32 : kernels_.filters[filter_].entries; }
    Filter run() const;

    const Layout& layout_;
    QueryTables t_;
    const ScanKernels& kernels_;
    int columns_;
    bool split_;                 // nibbles by the level's own filter
    PooledVector<float> least_;  // of each codebook, then of norm_levels
    double least_sum_ = 0, magnitude_ = 0;
    int filter_ = 0, finest_ = 0;
    PooledVector<Line> lines_;  // (columns, entries)
    double gap_ = 0;            // that 253 stands for
    double bytes_per_gap_ = 0;
    float norm_step_ = 0;
};

}  // namespace annvq
