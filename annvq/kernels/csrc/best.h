// The k lowest hits seen, ordered by (distance, id).
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace annvq {

using Hit = std::pair<float, int64_t>;  // (distance, id)

// An unsorted buffer of twice k: pushing is a store, and a full buffer is cut to its k lowest. Between cuts the
// limit is the k-th lowest of the last cut, so some hits are kept that a heap would refuse; it costs less than
// sifting each.
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

    // Brings the limit up to date.
    void cut() {
        if (!full()) return;
        std::nth_element(hits_.begin(), hits_.begin() + (k_ - 1), hits_.end());
        hits_.resize(k_);
        limit_ = hits_[k_ - 1];
    }

    void merge(const Best& other) {
        for (const Hit& hit : other.hits_) push(hit.first, hit.second);
    }

    // The k lowest, ascending; fewer where fewer were seen.
    const std::vector<Hit>& sorted() {
        cut();
        std::sort(hits_.begin(), hits_.end());
        return hits_;
    }

  private:
    static constexpr int64_t kSlack = 16;

    int64_t k_, capacity_;
    std::vector<Hit> hits_;
    Hit limit_{std::numeric_limits<float>::infinity(), std::numeric_limits<int64_t>::min()};
};

}  // namespace annvq
