// Rows that a filter let through and that wait to be scored: the more there are, the more of them the scores
// of those with the lowest sums rule out.
#pragma once
#include <algorithm>
#include <cstdint>

#include "common/pooled.h"
#include "scan/kernels.h"

namespace annvq {

class WaitingRows {
  public:
    int count() const { return count_; }
    // The superblock that rows are numbered from.
    int64_t block() const { return block_; }
    uint32_t* rows() { return rows_.data(); }
    const uint8_t* sums() const { return sums_.data(); }

    // Takes rows numbered from a superblock's first, at or after block() unless none wait.
    void append(int64_t block, const FilteredRows& found) {
        if (!count_) block_ = block;
        const auto base = static_cast<uint32_t>((block - block_) * kSuperblock);
        const int total = count_ + found.count;
        if (static_cast<size_t>(total) > rows_.size()) {
            const int room = std::max(total, 2 * count_);
            rows_.resize(room), sums_.resize(room);
        }
        for (int i = 0; i < found.count; i++) rows_[count_ + i] = base + found.rows[i];
        std::copy(found.sums, found.sums + found.count, sums_.data() + count_);
        count_ = total;
    }

    void clear() { count_ = 0; }

  private:
    PooledVector<uint32_t> rows_;
    PooledVector<uint8_t> sums_;
    int count_ = 0;
    int64_t block_ = 0;
};

}  // namespace annvq
