// How rows lie in the chunks of a store.
#pragma once
#include <cstdint>
#include <memory>

#include "scan/layout.h"
#include "store/snapshot.h"

namespace annvq {

class RowFormat {
  public:
    // relabel: (M, 256) permutations of the codes as they are kept, or nullptr.
    RowFormat(StoreShape shape, const uint8_t* relabel);

    const StoreShape& shape() const { return shape_; }
    const Layout& layout() const { return layout_; }                        // of byte codes
    int64_t block_bytes() const;                                            // of a superblock
    int64_t row_bytes() const { return shape_.M * (shape_.wide ? 2 : 1); }  // of a code outside

    // A chunk of zeros, without ids.
    std::shared_ptr<Chunk> make_chunk(int64_t blocks, uint32_t serial) const;
    static int64_t* make_ids(Chunk& chunk);
    void write(Chunk& chunk, int64_t at, const Rows& rows, int64_t row) const;
    // norm_byte and norm: written to where the store keeps such.
    void read(const Chunk& chunk, int64_t at, void* codes, uint8_t* norm_byte, float* norm) const;
    void fetch(const Chunk& chunk, int64_t at) const;  // into the cache

  private:
    StoreShape shape_;
    Layout layout_;
};

// What the bytes of single norms stand for in a new chunk that begins with rows[picked[0..count)].
void set_norm_range(Chunk& chunk, const Rows& rows, const int64_t* picked, int64_t count);

}  // namespace annvq
