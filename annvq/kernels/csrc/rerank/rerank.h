// Re-ranking: exact distances of a shortlist to stored rows, and the rows themselves.
//
// A distance is defined by sixteen partial sums: lane l adds the terms of dimensions l, l + 16, l + 32, … in
// that order, then lanes l and l + 8 are added, l and l + 4, l and l + 2, l and l + 1; float32, no fused
// multiply-add. So it never depends on the SIMD level, the batch or the threads.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "common/id_map.h"
#include "common/mutex.h"
#include "rerank/kernels.h"

namespace annvq {

// Rows of bytes under ids (>= 0). Rows never move: memory grows by chunks, removed rows are used again.
// Readers and writers may come from any thread.
class RowStore {
  public:
    explicit RowStore(int64_t row_bytes) : row_bytes_(row_bytes) {}

    // Starts with rows that lie elsewhere (mapped memory, which `owner` keeps alive).
    void adopt(const int64_t* ids, const uint8_t* rows, int64_t n, std::shared_ptr<void> owner);
    // std::invalid_argument, and nothing is stored, where an id is there already and `replace` is false.
    void append(const int64_t* ids, const uint8_t* rows, int64_t n, bool replace);
    // Ids that are not there are passed over. Returns how many were.
    int64_t remove(const int64_t* ids, int64_t n);
    int64_t size() const;
    int64_t row_bytes() const { return row_bytes_; }
    int64_t memory() const;
    // Copies of rows; std::invalid_argument where an id is missing.
    void get(const int64_t* ids, int64_t n, uint8_t* out) const;
    // Live rows in ascending order of id.
    void export_rows(std::vector<int64_t>& ids, std::vector<uint8_t>& rows) const;

    std::shared_lock<SharedMutex> reading() const { return std::shared_lock(mutex_); }
    // While reading() is held: the row of an id, nullptr where there is none.
    const uint8_t* find(int64_t id) const;

  private:
    static constexpr int64_t kChunkBytes = int64_t{1} << 22;

    int64_t row_of(int64_t id) const;
    uint8_t* own_row(int64_t row);
    int64_t chunk_rows() const { return row_bytes_ >= kChunkBytes ? 1 : kChunkBytes / row_bytes_; }
    void use_map();

    mutable SharedMutex mutex_;
    int64_t row_bytes_;
    std::shared_ptr<void> owner_;
    const uint8_t* adopted_ = nullptr;
    int64_t adopted_rows_ = 0;
    struct Free {
        void operator()(uint8_t* memory) const;
    };
    std::vector<std::unique_ptr<uint8_t[], Free>> chunks_;
    std::vector<int64_t> ids_;   // by row, -1: free
    std::vector<int64_t> free_;  // rows of chunks_ to use again
    IdMap map_;                  // id -> row, once ids are not row numbers
    bool mapped_ = false;
    int64_t live_ = 0;
};

// Queries, the ids of each one's candidates, and how many of them are wanted.
struct RerankArguments {
    const float* queries = nullptr;  // (nq, dim)
    int64_t nq = 0, dim = 0;
    const int64_t* ids = nullptr;  // (nq, s), -1: none
    int64_t s = 0, k = 0;
    RowMetric metric = RowMetric::l2;
    int threads = 1;
};

// Codebooks that add up, each over its own dimensions: entries (sum of sizes, width), codebook after
// codebook.
struct SumBooks {
    std::vector<float> entries;
    std::vector<int64_t> first;  // (M,) each codebook's first entry
    std::vector<int32_t> sizes, starts;
    int32_t width = 0, M = 0;
    bool wide = false;  // uint16 codes

    // Whether their codes may be a ProductPart.
    bool product_of(int64_t dim) const;
};

// What a candidate's vector consists of besides its row: given per candidate, all optional.
struct CoarsePart {
    const SumBooks* books = nullptr;
    const void* codes = nullptr;       // (nq * s, M)
    const float* centroids = nullptr;  // (nlist, dim)
    const int32_t* lists = nullptr;    // (nq * s,)
};

// distances, found: (nq, k), by (distance, id), padded with +inf and -1. Candidates that are not there are
// left out. Distances that are not finite in float32 are computed in double, and held within float32's
// numbers.
void rerank_rows(const RerankArguments& a, const RowStore& rows, RowType type, float* distances,
                 int64_t* found);
void rerank_array(const RerankArguments& a, const uint8_t* rows, int64_t n, int64_t stride, RowType type,
                  float* distances, int64_t* found);
// The vector is (sum of coarse entries + centroid) + sum of the row's entries.
void rerank_codes(const RerankArguments& a, const RowStore& rows, const SumBooks& books,
                  const CoarsePart& coarse, float* distances, int64_t* found);

}  // namespace annvq
