// The last filter of single queries, prepared where it has come twice: whoever asks one query after another
// with the same filter need not prepare it.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "store/store.h"

namespace annvq {

// One filter at most is kept, and only one that allows few of many rows: a copy of it and of these rows.
// Whether it has come again is told by comparing all of it, as callers may write to theirs.
class RecentFilter {
  public:
    // `given` (ids in any order) prepared, or nullptr where it is not kept. stored: rows of the store.
    std::shared_ptr<PreparedFilter> find(const Allowed& given, int64_t stored);
    // The store has changed.
    void forget();

  private:
    // So many words of a filter tell most filters apart, without reading them.
    struct Sample {
        bool listed = false;
        int64_t size = -1;
        std::array<int64_t, 32> words{};
        bool operator==(const Sample& other) const {
            return listed == other.listed && size == other.size && words == other.words;
        }
    };
    struct Kept {
        Sample sample;
        std::vector<int64_t> ids;  // as given
        Bits bits;                 // of a bitmap
        std::shared_ptr<PreparedFilter> prepared;
    };
    static Sample sample_of(const Allowed& given);
    static bool same(const Kept& kept, const Allowed& given);
    static std::shared_ptr<const Kept> keep(const Sample& sample, const Allowed& given, int64_t stored);

    Mutex mutex_;
    Sample last_, refused_;
    std::shared_ptr<const Kept> kept_;
};

}  // namespace annvq
