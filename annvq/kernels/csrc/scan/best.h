// The k lowest hits seen, ordered by (distance, id).
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/pooled.h"

namespace annvq {

using Hit = std::pair<float, int64_t>;  // (distance, id)

// Where an id is: itself (>= 0), or ~ of the address that holds it, to be read only when it matters, since
// ids lie far apart. The lowest bit of the address says that it holds four bytes.
using IdPlace = int64_t;
inline IdPlace place_of(Ids id) {
    return ~(static_cast<int64_t>(reinterpret_cast<intptr_t>(id.data)) | id.narrow);
}
inline const void* address_of(IdPlace place) {
    return reinterpret_cast<const void*>(static_cast<intptr_t>(~place & ~int64_t{1}));
}
inline int64_t id_at(IdPlace place) {
    if (place >= 0) return place;
    return ~place & 1 ? int64_t{*static_cast<const uint32_t*>(address_of(place))}
                      : *static_cast<const int64_t*>(address_of(place));
}

// Hits lie in unsorted buffers of twice k: adding is a store without a branch, and full buffers are cut to
// about the k lowest. Between cuts the limit is the highest distance kept at the last one, so some hits are
// kept that a heap would refuse; it costs less than sifting each.
class Best {
  public:
    explicit Best(int64_t k) : k_(k), capacity_(2 * k + kSlack) {}

    // No hit at or above this matters. +inf itself is never kept.
    const Hit& limit() const { return limit_; }
    // Hits added since the last cut.
    int64_t added() const { return size_ - after_cut_; }
    // k hits of at most this distance were seen elsewhere. True where the limit falls.
    bool lower(float distance) {
        if (!(distance < limit_.first)) return false;
        limit_ = {distance, std::numeric_limits<int64_t>::max()};
        return true;
    }

    // Hits (distances[i], the id at place(i)) for i < count.
    template <class Place>
    void add(const float* distances, int64_t count, Place place) {
        for (int64_t i = 0; i < count;) {
            const int64_t end = std::min(count, i + capacity_ - size_);
            make_room(size_ + end - i);
            const Hit limit = limit_;
            int64_t to = size_;
            for (; i < end; i++) {
                const float d = distances[i];
                distances_[to] = d, places_[to] = place(i);
                to += d < limit.first;  // no branch: no guess
                if (d == limit.first) to += id_at(place(i)) < limit.second;
            }
            cut_ = cut_ && size_ == to;
            size_ = to;
            if (size_ == capacity_) cut();
        }
    }

    // Brings the limit up to date: counts distances in bins, and drops the bins beyond the k-th.
    void cut() {
        if (size_ < k_ || cut_) return;
        cut_ = true;
        const auto [low, high] = range();
        const float scale = (kBins - 0.5f) / (high - low);
        if (!(scale > 0 && scale < kHuge)) return cut_exactly();  // all alike, or too far apart for float
        bins_.resize(size_);
        int32_t counts[kBins] = {};
        for (int64_t i = 0; i < size_; i++) bins_[i] = static_cast<int32_t>((distances_[i] - low) * scale);
        for (int64_t i = 0; i < size_; i++) counts[bins_[i]]++;
        int64_t kept = 0;
        int last = 0;
        while ((kept += counts[last]) < k_) last++;
        if (kept > (k_ + capacity_) / 2) return cut_exactly();
        int64_t to = 0;
        for (int64_t i = 0; i < size_; i++) {
            distances_[to] = distances_[i], places_[to] = places_[i];
            to += bins_[i] <= last;
        }
        size_ = to;
        after_cut_ = size_;
        lower(range().second);
    }

    void merge(const Best& other) {
        add(other.distances_.data(), other.size_, [&](int64_t i) { return other.places_[i]; });
    }

    // Asks for the ids of what sorted() will read.
    void prefetch() {
        cut();
        for (int64_t i = 0; i < size_; i++)
            if (places_[i] < 0) __builtin_prefetch(address_of(places_[i]));
    }

    // The k lowest, ascending, or fewer where fewer were seen.
    std::vector<Hit> sorted() {
        cut();
        std::vector<Hit> hits(size_);
        for (int64_t i = 0; i < size_; i++) hits[i] = {distances_[i], id_at(places_[i])};
        std::sort(hits.begin(), hits.end());
        if (size_ > k_) hits.resize(k_);
        return hits;
    }

  private:
    static constexpr int64_t kSlack = 60;
    static constexpr int kBins = 64;
    static constexpr float kHuge = 1e30f;

    // One place more than `size`, so that a hit that is not kept can be written too.
    void make_room(int64_t size) {
        if (size < static_cast<int64_t>(places_.size())) return;
        const int64_t room = std::min(capacity_, std::max<int64_t>(2 * size, 64)) + 1;
        distances_.resize(room), places_.resize(room);
    }

    // The lowest and the highest distance; four at a time, so that the compiler may use lanes.
    std::pair<float, float> range() const {
        float low[4], high[4];
        for (int l = 0; l < 4; l++) low[l] = high[l] = distances_[0];
        int64_t i = 0;
        for (; i + 4 <= size_; i += 4)
            for (int l = 0; l < 4; l++) {
                const float d = distances_[i + l];
                low[l] = d < low[l] ? d : low[l];
                high[l] = d > high[l] ? d : high[l];
            }
        for (; i < size_; i++)
            low[0] = std::min(low[0], distances_[i]), high[0] = std::max(high[0], distances_[i]);
        return {*std::min_element(low, low + 4), *std::max_element(high, high + 4)};
    }

    void cut_exactly() {
        std::vector<std::pair<Hit, IdPlace>> hits(size_);
        for (int64_t i = 0; i < size_; i++) hits[i] = {{distances_[i], id_at(places_[i])}, places_[i]};
        std::nth_element(hits.begin(), hits.begin() + (k_ - 1), hits.end());
        after_cut_ = size_ = k_;
        for (int64_t i = 0; i < size_; i++) distances_[i] = hits[i].first.first, places_[i] = hits[i].second;
        limit_ = std::min(limit_, hits[k_ - 1].first);
    }

    int64_t k_, capacity_, size_ = 0, after_cut_ = 0;
    bool cut_ = false;               // nothing was added since the last cut
    PooledVector<float> distances_;  // size_ of them, and of places_
    PooledVector<IdPlace> places_;
    PooledVector<int32_t> bins_;
    Hit limit_{std::numeric_limits<float>::infinity(), std::numeric_limits<int64_t>::min()};
};

}  // namespace annvq
