// The code store: codes of vectors, with ids and norms, in one list or many, that can grow, shrink and be
// searched at once.
//
// A list is a sequence of chunks; a chunk is a run of superblocks ([superblock][column][512], see
// scan/layout.h) that rows are appended to and that never moves. The rows of a list that fill no superblock
// lie in a short chunk, which takes part of one that lists share (store/shelves.h), and which is copied where
// it has to grow; readers keep the old one as long as they need it. Readers work on a Snapshot: which chunks
// there are, how many rows of each count, and which of those are removed. A writer fills rows beyond every
// snapshot's count, then publishes a new snapshot; what a snapshot covers is never written to again. (The
// scan may load lanes past a snapshot's count while they are written; it masks them out.)
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "scan/layout.h"
#include "store/id_index.h"
#include "store/row_format.h"
#include "store/snapshot.h"
#include "tables/tables.h"

namespace annvq {

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

class Draft;      // store/draft.h
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
    Mutex resolving_;
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

    const RowFormat& format() const { return format_; }
    const StoreShape& shape() const { return format_.shape(); }
    const Layout& layout() const { return format_.layout(); }

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

    // Takes over the superblocks of all lists, of sizes[l] rows each, from memory that outlives the store
    // through `owner`: full superblocks are scanned where they lie, the last, partial one of a list
    // ([columns][n % 512]) is copied; without an owner, all is. For byte codes without single norms, kept as
    // this store keeps them (relabelled).
    void adopt(const uint8_t* codes, const int64_t* ids, int64_t first_id, const int64_t* sizes,
               const std::shared_ptr<void>& owner);

    std::shared_ptr<const Snapshot> snapshot() const;
    int64_t size() const { return snapshot()->live; }
    // Codes and norms, with what is reserved, removed and kept about them.
    int64_t code_bytes() const;
    int64_t id_bytes();  // ids and the map of them

  private:
    void publish(Draft& draft);
    void close_gaps();
    std::shared_ptr<const Resolved> resolve(const Allowed& allowed, const std::vector<int64_t>& asked,
                                            int threads);
    std::shared_ptr<const Resolved> resolve(PreparedFilter& filter, int threads);
    std::shared_ptr<const Snapshot> name_rows(const Allowed& allowed, NamedRows* named);

    RowFormat format_;
    Mutex writing_;             // held by whoever changes the store or looks ids up
    mutable Mutex publishing_;  // held to copy or swap current_
    std::shared_ptr<const Snapshot> current_;
    IdIndex ids_;
};

}  // namespace annvq
