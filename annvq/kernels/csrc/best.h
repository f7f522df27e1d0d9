// The k lowest hits seen, ordered by (distance, id).
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace annvq {

using Hit = std::pair<float, int64_t>;  // (distance, id)

// An unsorted buffer of somewhat more than k: pushing is a store, and a full buffer is cut to about its k
// lowest. Between cuts the limit is the highest kept at the last one, so some hits are kept that a heap would
// refuse; it costs less than sifting each.
class Best {
  public:
    explicit Best(int64_t k) : k_(k), capacity_(2 * k + kSlack) {}

    bool full() const { return static_cast<int64_t>(hits_.size()) >= k_; }
    // No hit at or above this matters. +inf itself is never kept.
    const Hit& limit() const { return limit_; }

    void push(float distance, int64_t id) {
        const Hit hit{distance, id};
        if (!(hit < limit_)) return;
        hits_.push_back(hit);
        if (static_cast<int64_t>(hits_.size()) >= capacity_) cut();
    }

    // Brings the limit up to date: counts distances in bins, and drops the bins beyond the k-th.
    void cut() {
        if (!full()) return;
        float low = hits_[0].first, high = low;
        for (const Hit& hit : hits_) {
            low = hit.first < low ? hit.first : low;
            high = hit.first > high ? hit.first : high;
        }
        const float scale = (kBins - 0.5f) / (high - low);
        const int64_t size = static_cast<int64_t>(hits_.size());
        // Too few to need bins, or all alike: (high - low) is tiny, zero, or beyond float.
        if (size < kBins / 2 || !(scale > 0 && scale < kHuge)) return cut_exactly();
        const auto bin = [&](const Hit& hit) { return static_cast<int>((hit.first - low) * scale); };
        int32_t counts[kBins] = {};
        for (const Hit& hit : hits_) counts[bin(hit)]++;
        int64_t kept = 0;
        int last = 0;
        while ((kept += counts[last]) < k_) last++;
        if (kept > k_ + (capacity_ - k_) / 2) return cut_exactly();
        Hit limit = hits_[0];
        int64_t to = 0;
        bool any = false;
        for (int64_t i = 0; i < size; i++) {
            const Hit hit = hits_[i];
            const bool keep = bin(hit) <= last;
            hits_[to] = hit;
            to += keep;
            if (keep && (!any || limit < hit)) limit = hit, any = true;
        }
        hits_.resize(to);
        limit_ = limit;
    }

    void merge(const Best& other) {
        for (const Hit& hit : other.hits_) push(hit.first, hit.second);
    }

    // The k lowest, ascending; fewer where fewer were seen.
    const std::vector<Hit>& sorted() {
        cut_exactly();
        std::sort(hits_.begin(), hits_.end());
        return hits_;
    }

  private:
    static constexpr int64_t kSlack = 16;
    static constexpr int kBins = 64;
    static constexpr float kHuge = 1e30f;

    void cut_exactly() {
        if (!full()) return;
        std::nth_element(hits_.begin(), hits_.begin() + (k_ - 1), hits_.end());
        hits_.resize(k_);
        limit_ = hits_[k_ - 1];
    }

    int64_t k_, capacity_;
    std::vector<Hit> hits_;
    Hit limit_{std::numeric_limits<float>::infinity(), std::numeric_limits<int64_t>::min()};
};

}  // namespace annvq
