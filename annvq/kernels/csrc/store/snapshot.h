// What a store holds at one moment: lists of chunks, how many rows of each count, and which of those are
// removed.
//
// A list is a sequence of chunks; a chunk is a run of superblocks ([superblock][column][512], see
// scan/layout.h) that rows are appended to and that never moves. What a snapshot covers is never written to
// again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <forward_list>
#include <memory>
#include <vector>

#include "common/ids.h"
#include "scan/layout.h"
#include "store/shelves.h"

namespace annvq {

struct StoreShape {
    int32_t M = 1;
    std::vector<int32_t> sizes;  // (M,) entries of each codebook
    bool wide = false;           // uint16 codes
    NormKind norm = NormKind::none;
    int32_t lists = 1;
};

// Rows handed in or out, row-major.
struct Rows {
    int64_t n = 0;
    const void* codes = nullptr;  // (n, M)
    const uint8_t* norm_bytes = nullptr;
    const float* norms = nullptr;
    const int64_t* ids = nullptr;
    const int32_t* lists = nullptr;  // nullptr: all in list 0
};

struct Chunk {
    std::forward_list<std::shared_ptr<void>> memory;  // what the pointers below point into
    Shelves::Place place;                             // or this, of a chunk shorter than a superblock
    uint8_t* codes = nullptr;                         // capacity / 512 superblocks, or part of one
    float* norms = nullptr;                           // (capacity,) where the store keeps single norms
    Ids ids;                                          // (capacity,), or none: first_id + row
    int64_t first_id = 0;
    int64_t capacity = 0;
    uint32_t serial = 0;                // its place among the chunks of a store
    bool writable = true;               // false: mapped
    float norm_low = 0, norm_step = 0;  // what the bytes of single norms stand for

    bool is_short() const { return capacity < kSuperblock; }
    // Of a chunk that has ids of its own, which are as wide as this one.
    void set_id(int64_t row, int64_t id) {
        if (ids.narrow)
            static_cast<uint32_t*>(const_cast<void*>(ids.data))[row] = static_cast<uint32_t>(id);
        else
            static_cast<int64_t*>(const_cast<void*>(ids.data))[row] = id;
    }
};

using Bits = std::vector<uint64_t>;

// A chunk as a snapshot sees it.
struct Piece {
    std::shared_ptr<const Chunk> chunk;
    int64_t n = 0;
    std::shared_ptr<const Bits> live;  // nullptr: all n rows
    int64_t dead = 0;

    bool is_live(int64_t row) const { return !live || ((*live)[row / 64] >> (row % 64) & 1); }
    int64_t id(int64_t row) const { return chunk->ids ? chunk->ids[row] : chunk->first_id + row; }
};

struct List {
    std::vector<Piece> pieces;
    int64_t rows = 0, dead = 0;
};

struct Snapshot {
    std::vector<std::shared_ptr<const List>> lists;
    int64_t live = 0;
};

}  // namespace annvq
