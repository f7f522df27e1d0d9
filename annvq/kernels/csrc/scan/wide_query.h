// One query's scan of codes over 8 bits: every row is scored in float. Same meaning as Query, over segments
// whose superblocks are [column][512] of uint16, with norm levels in one more column.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "scan/best.h"
#include "scan/query.h"
#include "scan/refusals.h"

namespace annvq {

struct WideTables {
    const float* luts;  // (M, K); every code is below K
    int32_t M;
    int64_t K;
    const float* norm_levels;  // (256,), or nullptr where the store keeps none
};

class WideQuery {
  public:
    WideQuery(const WideTables& tables, int64_t k) : t_(tables), k_(k), best_(k) {
        require_scores(t_.luts, t_.M * t_.K);
        if (t_.norm_levels) require_scores(t_.norm_levels, 256);
    }

    void scan(const Segment& segment, float bias, int64_t first, int64_t last) {
        for (int64_t block = first; block < last; block++) scan_block(segment, bias, block);
    }

    void merge(WideQuery&& other) { best_.merge(other.best_); }

    void expect(float) {}
    void share(std::atomic<float>*) {}
    void finish() { best_.prefetch(); }

    void write(float* distances, int64_t* ids) {
        const std::vector<Hit> hits = best_.sorted();
        for (int64_t r = 0; r < k_; r++) {
            const bool found = r < static_cast<int64_t>(hits.size());
            distances[r] = found ? hits[r].first : std::numeric_limits<float>::infinity();
            ids[r] = found ? hits[r].second : -1;
        }
    }

  private:
    static void require_scores(const float* table, int64_t size) {
        for (int64_t i = 0; i < size; i++)
            if (!(table[i] > -std::numeric_limits<float>::infinity()))
                throw std::invalid_argument(kTablesRefused);
    }

    void scan_block(const Segment& s, float bias, int64_t block) {
        const int64_t start = block * kSuperblock, rows = std::min(kSuperblock, s.n - start);
        const uint64_t* live = s.live ? s.live + 8 * block : nullptr;
        if (live && std::all_of(live, live + 8, [](uint64_t w) { return w == 0; })) return;
        const int32_t columns = t_.M + (t_.norm_levels != nullptr);
        const uint16_t* codes = reinterpret_cast<const uint16_t*>(s.codes) + start * columns;
        float scores[kSuperblock];
        for (int64_t j = 0; j < rows; j++) scores[j] = t_.luts[codes[j]];
        for (int m = 1; m < t_.M; m++) {
            const float* table = t_.luts + m * t_.K;
            const uint16_t* column = codes + m * kSuperblock;
            for (int64_t j = 0; j < rows; j++) scores[j] += table[column[j]];
        }
        if (t_.norm_levels)
            for (int64_t j = 0; j < rows; j++) scores[j] += t_.norm_levels[codes[t_.M * kSuperblock + j]];
        if (s.norms_f32)
            for (int64_t j = 0; j < rows; j++) scores[j] += s.norms_f32[start + j];
        int64_t count = 0;
        IdPlace places[kSuperblock];
        for (int64_t j = 0; j < rows; j++) {
            const float score = scores[j] + bias;
            // Written so that NaN, which +inf in a table and a norm that overflows may give, is refused.
            if (!(score <= best_.limit().first)) continue;
            if (live && !(live[j / 64] >> (j % 64) & 1)) continue;
            scores[count] = score;
            places[count++] = s.ids ? place_of(s.ids + start + j) : s.first_id + start + j;
        }
        best_.add(scores, count, [&](int64_t i) { return places[i]; });
    }

    WideTables t_;
    int64_t k_;
    Best best_;
};

inline void scan_together(WideQuery* const* queries, const float* biases, int64_t count,
                          const Segment& segment, int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b++)
        for (int64_t q = 0; q < count; q++) queries[q]->scan(segment, biases[q], b, b + 1);
}

}  // namespace annvq
