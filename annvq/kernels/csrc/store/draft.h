// A snapshot being changed: its lists are cloned when they are first edited.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "store/id_index.h"
#include "store/row_format.h"
#include "store/snapshot.h"

namespace annvq {

constexpr int64_t kChunkBlocks = 256;  // superblocks of a chunk, at most

// Made by who holds the store's lock, from the snapshot that is current until what finish() gives is
// published; unless that happens, the map of ids is forgotten, to be made anew.
class Draft {
  public:
    Draft(const Snapshot& s, const RowFormat& format, IdIndex& ids)
        : before_(s), format_(format), ids_(ids), lists_(s.lists), live_(s.live) {}
    ~Draft() {
        if (!done_) ids_.forget_map();
    }
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;

    // Appends rows to their lists, and to the map of ids where there is one.
    void append(const Rows& rows);
    // Marks the rows of those ids that are there as removed; returns how many.
    int64_t kill(const int64_t* ids, int64_t n);
    // Copies the live rows of pieces that hold many removed ones into new chunks.
    void rewrite_edited();
    // Adds rows [0, n) of a list from memory that is kept as the store keeps it; see CodeStore::adopt.
    void adopt(int32_t number, const uint8_t* codes, const int64_t* ids, int64_t first_id, int64_t n,
               const std::shared_ptr<void>& owner);

    // Moves short chunks out of memory that has been closed; rows stay where they were in their lists.
    void leave_closed();

    // The next snapshot, to be published at once. Chunks are known to be where it has them.
    std::shared_ptr<const Snapshot> finish();
    // It has been published.
    void done() { done_ = true; }

  private:
    List& edit(int32_t number);
    Bits& edit_bits(Piece& piece);
    std::shared_ptr<Chunk> new_chunk(const List& list, const Rows& rows, const int64_t* picked, int64_t n);
    void append_to_list(List& list, const Rows& rows, const int64_t* picked, int64_t n);
    void rewrite(int32_t number);

    const Snapshot& before_;
    const RowFormat& format_;
    IdIndex& ids_;
    std::vector<std::shared_ptr<const List>> lists_;
    std::unordered_map<int32_t, std::shared_ptr<List>> edited_;
    std::unordered_set<const Bits*> own_bits_;
    std::vector<uint32_t> left_;  // serials of chunks that have been rewritten
    int64_t live_;
    bool done_ = false;
};

}  // namespace annvq
