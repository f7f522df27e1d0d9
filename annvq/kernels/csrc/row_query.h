// One query's scan without byte-wide bounds: every row is scored in float. For codes over 8 bits, and for
// SIMD levels that have no blocked kernel. Same meaning as Query.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "layout.h"
#include "query.h"

namespace annvq {

struct RowTables {
    const Layout* layout;  // nullptr: two bytes a code, M columns and one for norm levels
    const float* luts;     // (M, K)
    int32_t M;
    int64_t K;
    const float* norm_levels = nullptr;  // (256,) where the store keeps levels
};

template <class Code>
class RowQuery {
  public:
    RowQuery(const RowTables& tables, int64_t k) : t_(tables), k_(k) {
        require_scores(t_.luts, t_.M * t_.K);
        if (t_.norm_levels) require_scores(t_.norm_levels, 256);
        columns_ = t_.layout ? t_.layout->columns() : t_.M + (t_.norm_levels != nullptr);
        if (t_.layout) by_stored_byte();
    }

    RowQuery(RowQuery&&) = default;  // not copied: tables may point into it
    RowQuery& operator=(RowQuery&&) = default;

    void scan(const Segment& segment, float bias, int64_t first, int64_t last) {
        for (int64_t b = first; b < last; b++) scan_block(segment, bias, b);
    }

    void merge(RowQuery&& other) {
        for (const Hit& hit : other.heap_) push(hit);
    }

    void write(float* distances, int64_t* ids) {
        std::sort_heap(heap_.begin(), heap_.end());
        for (int64_t r = 0; r < k_; r++) {
            const bool found = r < static_cast<int64_t>(heap_.size());
            distances[r] = found ? heap_[r].first : kInfinity;
            ids[r] = found ? heap_[r].second : -1;
        }
    }

  private:
    using Hit = std::pair<float, int64_t>;  // ordered by (distance, id)
    static constexpr float kInfinity = std::numeric_limits<float>::infinity();

    static void require_scores(const float* table, int64_t size) {
        for (int64_t i = 0; i < size; i++)
            if (!(table[i] > -kInfinity)) throw std::invalid_argument("tables must hold no NaN and no -inf");
    }

    // Tables by what is stored in place of codes: relabelled, or two to a byte.
    void by_stored_byte() {
        const Layout& layout = *t_.layout;
        own_.assign(t_.M * 256 + 256, kInfinity);
        const auto meaning = [&](int column, int b) {
            return layout.meaning(column) ? layout.meaning(column)[b] : b;
        };
        for (int m = 0; m < t_.M; m++)
            for (int b = 0; b < 256; b++) {
                const int code = layout.nibbles() ? b >> (m % 2 * 4) & 15 : meaning(m, b);
                if (code < t_.K) own_[m * 256 + b] = t_.luts[m * t_.K + code];
            }
        for (int b = 0; b < 256 && t_.norm_levels; b++)
            own_[t_.M * 256 + b] = t_.norm_levels[meaning(layout.code_columns(), b)];
        t_.luts = own_.data();
        t_.K = 256;
        if (t_.norm_levels) t_.norm_levels = own_.data() + t_.M * 256;
    }

    void scan_block(const Segment& s, float bias, int64_t block) {
        const int64_t start = block * kBlock, rows = std::min(kBlock, s.n - start);
        const uint64_t* live = s.live ? s.live + 8 * block : nullptr;
        if (live && std::all_of(live, live + 8, [](uint64_t w) { return w == 0; })) return;
        const Code* codes = reinterpret_cast<const Code*>(s.codes) + start * columns_;
        float scores[kBlock];
        for (int64_t j = 0; j < rows; j++) scores[j] = t_.luts[codes[j]];
        for (int m = 1; m < t_.M; m++) {
            const float* table = t_.luts + m * t_.K;
            const Code* column = codes + (t_.layout && t_.layout->nibbles() ? m / 2 : m) * kBlock;
            for (int64_t j = 0; j < rows; j++) scores[j] += table[column[j]];
        }
        if (t_.norm_levels)
            for (int64_t j = 0; j < rows; j++)
                scores[j] += t_.norm_levels[codes[(columns_ - 1) * kBlock + j]];
        if (s.norms_f32)
            for (int64_t j = 0; j < rows; j++) scores[j] += s.norms_f32[start + j];
        for (int64_t j = 0; j < rows; j++) {
            const float score = scores[j] + bias;
            // Not above the k-th best, and no NaN: +inf - inf in a table that overflows.
            if (!(score <= worst_) || !(score < kInfinity)) continue;
            if (live && !(live[j / 64] >> (j % 64) & 1)) continue;
            push({score, s.ids ? s.ids[start + j] : s.first_id + start + j});
        }
    }

    void push(const Hit& hit) {
        if (static_cast<int64_t>(heap_.size()) < k_) {
            heap_.push_back(hit);
            std::push_heap(heap_.begin(), heap_.end());
        } else if (hit < heap_.front()) {
            std::pop_heap(heap_.begin(), heap_.end());
            heap_.back() = hit;
            std::push_heap(heap_.begin(), heap_.end());
        }
        if (static_cast<int64_t>(heap_.size()) == k_) worst_ = heap_.front().first;
    }

    RowTables t_;
    int64_t k_, columns_;
    std::vector<float> own_;
    std::vector<Hit> heap_;
    float worst_ = kInfinity;
};

template <class Code>
void scan_together(RowQuery<Code>* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b++)
        for (int64_t q = 0; q < count; q++) queries[q]->scan(segment, biases[q], b, b + 1);
}

}  // namespace annvq
