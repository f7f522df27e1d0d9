// The code store: codes of vectors, with ids and norms, in one list or many, that can grow, shrink and be
// searched at once.
//
// A list is a sequence of chunks; a chunk is a run of superblocks ([superblock][column][512], see
// scan/layout.h) that rows are appended to and that never moves. Readers work on a Snapshot: which chunks
// there are, how many rows of each count, and which of those are removed. A writer fills rows beyond every
// snapshot's count, then publishes a new snapshot; what a snapshot covers is never written to again. (The
// scan may load lanes past a snapshot's count while they are written; it masks them out.)
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/id_map.h"
#include "scan/layout.h"
#include "tables/tables.h"

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
    std::vector<std::shared_ptr<void>> memory;  // what the pointers below point into
    uint8_t* codes = nullptr;                   // capacity / 512 superblocks
    float* norms = nullptr;                     // (capacity,) where the store keeps single norms
    int64_t* ids = nullptr;                     // (capacity,), nullptr: first_id + row
    int64_t first_id = 0;
    int64_t capacity = 0;
    int64_t bytes = 0;                  // of codes and norms, in memory or mapped
    uint32_t serial = 0;                // its place among all chunks ever made
    bool writable = true;               // false: mapped
    float norm_low = 0, norm_step = 0;  // what the bytes of single norms stand for
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

// Where a filter allows ids: nullptr bitmap and allow-list: everywhere.
struct Allowed {
    const uint8_t* bitmap = nullptr;  // (bitmap_size,), by id
    int64_t bitmap_size = 0;
    const int64_t* ids = nullptr;  // (count,), ascending
    int64_t count = 0;

    bool any_id() const { return !bitmap && !ids; }
};

// Which rows of each piece an allow-list names: [list][piece] -> rows.
using NamedRows = std::vector<std::vector<std::vector<int64_t>>>;

struct Resolved;  // what a filter leaves of a snapshot; store/segments.h

// A filter whose rows are found once, and anew only after the store has changed. It keeps the snapshot that
// it was last used with, and copies of rows where it allows few.
class PreparedFilter {
  public:
    // A bitmap (bits by id), or allowed ids, ascending.
    PreparedFilter(std::vector<uint8_t> bitmap, std::vector<int64_t> ids, bool listed)
        : bitmap_(std::move(bitmap)), ids_(std::move(ids)), listed_(listed) {}

  private:
    friend class CodeStore;
    Allowed allowed() const;

    std::vector<uint8_t> bitmap_;
    std::vector<int64_t> ids_;
    bool listed_;
    std::mutex resolving_;
    std::shared_ptr<const Resolved> found_;
};

struct SearchArguments {
    const float* luts = nullptr;  // (nq, M, K), or nullptr: as `unbuilt` says
    UnbuiltTables unbuilt;
    int64_t nq = 0, K = 0;
    const float* bias = nullptr;         // (nq,)
    const float* norm_levels = nullptr;  // (256,)
    const int32_t* probes = nullptr;     // (nq, P), -1: none
    const float* probe_bias = nullptr;   // (nq, P), instead of bias
    int64_t P = 0;
    const int64_t* order = nullptr;  // (nq,), the queries so that neighbours probe the same lists
    Allowed allowed;
    PreparedFilter* prepared = nullptr;  // instead of allowed
    int64_t k = 1;
    int threads = 1;
};

enum class Fresh { checked, known, replaces };

class CodeStore {
  public:
    // relabel: (M, 256) permutations of the codes as they are kept, or nullptr.
    CodeStore(StoreShape shape, const uint8_t* relabel);

    const StoreShape& shape() const { return shape_; }
    const Layout& layout() const { return layout_; }                        // of byte codes
    int64_t block_bytes() const;                                            // of a superblock
    int64_t row_bytes() const { return shape_.M * (shape_.wide ? 2 : 1); }  // of a code outside

    // Stores rows whose codes, norms and lists are known to be right. Ids must be new: `checked` looks,
    // `known` trusts, `replaces` removes the rows that have them. std::invalid_argument before anything
    // changes. Returns how many were replaced.
    int64_t append(const Rows& rows, Fresh fresh);
    // std::invalid_argument where an id is missing or repeated; nothing is removed then.
    void remove(const int64_t* ids, int64_t n);
    void contains(const int64_t* ids, int64_t n, uint8_t* out);
    // Codes (n, M), norms of the store's kind and lists of ids; std::invalid_argument where one is missing.
    void rows(const int64_t* ids, int64_t n, void* codes, uint8_t* norm_bytes, float* norms, int32_t* lists);

    // distances, found: (nq, k). std::invalid_argument on NaN or -inf in tables or biases.
    void search(const SearchArguments& arguments, float* distances, int64_t* found);

    // Takes over a whole list's superblocks from memory that outlives the store through `owner`: full
    // superblocks are scanned where they lie, the last, partial one ([columns][n % 512]) is copied. For byte
    // codes without single norms, kept as this store keeps them (relabelled).
    void adopt(int32_t list, const uint8_t* codes, const int64_t* ids, int64_t first_id, int64_t n,
               std::shared_ptr<void> owner);

    void compact();

    std::shared_ptr<const Snapshot> snapshot() const;
    int64_t size() const { return snapshot()->live; }
    int64_t code_bytes() const;  // codes and norms, with what is reserved and removed
    int64_t id_bytes();          // ids and the map of them

    // Copies live rows of a snapshot in list order.
    void export_ids(const Snapshot& s, int64_t* ids) const;
    void export_rows(const Snapshot& s, void* codes, uint8_t* norm_bytes, float* norms, int64_t* ids) const;
    // The same as superblocks: whole ones, then [columns][rest] of each list.
    void export_blocks(const Snapshot& s, uint8_t* blocks, int64_t* ids) const;

  private:
    struct Place {
        int32_t list = -1;
        int64_t piece = 0;
    };
    struct Draft;  // a snapshot being changed
    struct MapGuard;

    std::shared_ptr<Chunk> make_chunk(int64_t blocks);
    void append_to_list(List& list, const Rows& rows, const int64_t* picked, int64_t n);
    void write_row(Chunk& chunk, int64_t at, const Rows& rows, int64_t row);
    void read_row(const Chunk& chunk, int64_t at, void* codes, uint8_t* norm_byte, float* norm) const;
    void fetch_row(const Chunk& chunk, int64_t at) const;  // into the cache
    void publish(Draft& draft);
    void require_new(const int64_t* ids, int64_t n);
    void prepare_lookup();
    bool locate(const Snapshot& s, int64_t id, int32_t* list, int64_t* piece, int64_t* row);
    bool find_ascending(const List& list, int64_t id, int64_t* piece, int64_t* row) const;
    int64_t kill(Draft& draft, const int64_t* ids, int64_t n);
    void append_rows(Draft& draft, const Rows& rows);
    void map_rows(const List& list, size_t piece, int64_t row);
    void rewrite_edited(Draft& draft);
    void rewrite(Draft& draft, int32_t list, bool all);
    std::shared_ptr<const Resolved> resolve(const Allowed& allowed, const std::vector<int64_t>& asked,
                                            int threads);
    std::shared_ptr<const Resolved> resolve(PreparedFilter& filter, int threads);
    std::shared_ptr<const Snapshot> name_rows(const Allowed& allowed, NamedRows* named);

    StoreShape shape_;
    Layout layout_;
    std::mutex writing_;             // held by whoever changes the store or looks ids up
    mutable std::mutex publishing_;  // held to copy or swap current_
    std::shared_ptr<const Snapshot> current_;
    std::vector<Place> places_;  // by chunk serial
    IdMap map_;                  // id -> chunk serial, row; while mapped_
    bool mapped_ = false;
    bool ascending_ = true;  // one list, ids in ascending order: found by bisection, no map
    bool ascending_known_ = true;
    bool ids_read_ = true;  // false: adopted, and not known to differ from one another
    int64_t last_id_ = -1;
};

}  // namespace annvq
