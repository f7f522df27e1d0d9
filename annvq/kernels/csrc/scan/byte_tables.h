// One query's tables in bytes, as a level's filters look them up.
//
// Every table, less its minimum, is floored to bytes with one scale, so that a saturating byte sum is a lower
// bound of the score less all minima.
//
// Where columns are many, floors of up to a unit each would add up to much of what a byte holds. So columns
// are taken in groups, each with a sum of bytes of its own, on a finer scale, and a row's sum is the mean of
// these. A group's sum that saturates is a lower bound as well.
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
    bool any() const { return kernels_.filter_count > 0; }

    // Makes the tables for scores up to `gap` above all minima; norm_step: of the segment's norm bytes, where
    // norms are floats.
    void make(double gap, float norm_step);
    double gap() const { return gap_; }
    // The highest sum of rows within a gap, which is at least 0.
    uint8_t sum_of(double gap) const;
    // See Filter. Where ahead is not 0, codes that lie so many bytes further on are fetched.
    int64_t filter(const uint8_t* blocks, int64_t first, int64_t last, uint8_t threshold, int64_t ahead,
                   FilteredRows* found) const {
        return run()(blocks, first, last, for_filter(ahead), threshold, found);
    }
    FilterTables for_filter(int64_t ahead) const {
        return {lines_.data()->bytes, columns_, groups_, ends_.data(), ahead};
    }
    // The filter of two queries with tables like these, where the level has one.
    FilterOfTwo run_two() const;
    // Whether a filter looks up both alike.
    bool alike(const ByteTables& other) const {
        return filter_ == other.filter_ && groups_ == other.groups_ && ends_ == other.ends_;
    }
    // From now on groups of columns are those of another query where they fit this one too. It must live as
    // long.
    void follow(const ByteTables* other) { followed_ = other; }
    // The k-th lowest of `count` sums, k <= count.
    uint8_t kth_sum(const uint8_t* sums, int count, int64_t k) const;

    // Filters to choose from, coarsest first: [0, finest()]. None where codes lie two to a byte.
    bool has_choice() const { return !layout_.nibbles(); }
    int chosen() const { return filter_; }
    int finest() const { return finest_; }
    double column_ns(int filter) const { return filter_costs(kernels_).column[filter]; }
    void choose(int filter);

  private:
    struct alignas(64) Line {
        uint8_t bytes[64];
    };

    void add_minimum(const float* table, int64_t size);
    void measure_spreads();
    void set_scale();
    bool divide(int groups);
    bool fit(const PooledVector<uint16_t>& ends, double most) const;
    double spread(int column) const;
    void quantize();
    void quantize_column(int column, float scale, uint8_t* out) const;
    void arrange();
    bool is_norm(int column) const { return column == layout_.code_columns(); }
    int entries() const { return layout_.nibbles() ? 32 : kernels_.filters[filter_].entries; }
    Filter run() const;

    const Layout& layout_;
    QueryTables t_;
    const ScanKernels& kernels_;
    int columns_;
    PooledVector<float> least_;  // of each codebook, then of norm_levels
    double least_sum_ = 0, magnitude_ = 0;
    int filter_ = 0, finest_ = 0;
    PooledVector<Line> bytes_;  // (columns, 256)
    PooledVector<Line> lines_;  // (columns, entries), for the filter
    double gap_ = 0;
    PooledVector<double> spreads_;  // of columns, once measured
    double spread_ = 0;             // the sum of these
    const ByteTables* followed_ = nullptr;
    int groups_ = 1;               // of columns
    PooledVector<uint16_t> ends_;  // of groups, where there are several
    double units_ = 0;             // of a group's sum, for each of distance
    float norm_step_ = 0;
};

}  // namespace annvq
