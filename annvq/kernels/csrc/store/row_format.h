// How rows lie in the chunks of a store.
#pragma once
#include <array>
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

    // A chunk for so many rows: whole superblocks of zeros, without ids; or, of fewer rows than a superblock,
    // a short one with room for ids, narrow or not.
    std::shared_ptr<Chunk> make_chunk(int64_t rows, uint32_t serial, bool narrow) const;
    // Room for the ids of a chunk of whole superblocks.
    static void make_ids(Chunk& chunk, bool narrow);
    // A chunk with the first n rows of a short one, and room for more.
    std::shared_ptr<Chunk> grown(const Chunk& chunk, int64_t n, int64_t rows) const;
    // Rows [0, n) from blocks as a store writes them, whole superblocks and then [column][n % 512].
    void take_blocks(Chunk& chunk, const uint8_t* blocks, int64_t n) const;
    void write(Chunk& chunk, int64_t at, const Rows& rows, int64_t row) const;
    // norm_byte and norm: written to where the store keeps such.
    void read(const Chunk& chunk, int64_t at, void* codes, uint8_t* norm_byte, float* norm) const;
    void fetch(const Chunk& chunk, int64_t at) const;  // into the cache
    // Of codes and norms, in memory or mapped.
    int64_t bytes_of(const Chunk& c) const { return c.capacity * (columns() * item() + (c.norms ? 4 : 0)); }

    // Whether short chunks should move, so that memory with gaps can be freed: those that lie there know.
    bool close_sparse() const;
    void settle() const;  // they have moved
    // Bytes of short chunks' superblocks that are not in use: of codes and norms, and of ids.
    std::array<int64_t, 2> spare_bytes() const;

  private:
    int64_t columns() const { return block_bytes() / (kSuperblock * item()); }
    int64_t item() const { return shape_.wide ? 2 : 1; }

    StoreShape shape_;
    Layout layout_;
    std::shared_ptr<Shelves> wide_shelves_, narrow_shelves_;  // of chunks with such ids
};

// What the bytes of single norms stand for in a new chunk that begins with rows[picked[0..count)].
void set_norm_range(Chunk& chunk, const Rows& rows, const int64_t* picked, int64_t count);

}  // namespace annvq
