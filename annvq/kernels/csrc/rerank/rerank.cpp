#include "rerank/rerank.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/large_pages.h"
#include "common/parallel.h"

namespace annvq {

namespace {

// Zeroed: rows are read at random.
uint8_t* zeroed_pages(int64_t bytes) {
    void* memory = large_pages(bytes);
    return static_cast<uint8_t*>(std::memset(memory, 0, bytes));
}

}  // namespace

void RowStore::Free::operator()(uint8_t* memory) const { free_large_pages(memory); }

// -- rows ---------------------------------------------------------------------------------------------------

int64_t RowStore::row_of(int64_t id) const {
    if (id < 0) return -1;
    if (mapped_) {
        const uint64_t row = map_.find(id);
        return row == IdMap::kNone ? -1 : static_cast<int64_t>(row);
    }
    const int64_t rows = static_cast<int64_t>(ids_.size());
    // Without gaps the row numbers say it, and the ids need not be fetched.
    return id < rows && (live_ == rows || ids_[id] == id) ? id : -1;
}

const uint8_t* RowStore::find(int64_t id) const {
    const int64_t row = row_of(id);
    if (row < 0) return nullptr;
    if (row < adopted_rows_) return adopted_ + row * row_bytes_;
    const int64_t own = row - adopted_rows_;
    return &chunks_[own / chunk_rows()][own % chunk_rows() * row_bytes_];
}

uint8_t* RowStore::own_row(int64_t row) {
    const int64_t own = row - adopted_rows_, chunk = own / chunk_rows();
    while (static_cast<int64_t>(chunks_.size()) <= chunk)
        chunks_.emplace_back(zeroed_pages(chunk_rows() * row_bytes_));
    return &chunks_[chunk][own % chunk_rows() * row_bytes_];
}

void RowStore::use_map() {
    if (mapped_) return;
    map_.reserve(live_ + 1);
    for (size_t row = 0; row < ids_.size(); row++)
        if (ids_[row] >= 0) map_.set(ids_[row], row);
    mapped_ = true;
}

void RowStore::adopt(const int64_t* ids, const uint8_t* rows, int64_t n, std::shared_ptr<void> owner) {
    std::unique_lock lock(mutex_);
    if (!ids_.empty()) throw std::invalid_argument("rows are adopted by an empty store only");
    bool numbers = true;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0) throw std::invalid_argument("ids must not be negative");
        numbers = numbers && ids[i] == i;
    }
    ids_.assign(ids, ids + n);
    owner_ = std::move(owner);
    adopted_ = rows;
    adopted_rows_ = live_ = n;
    if (!numbers) use_map();
    for (int64_t i = 0; mapped_ && i < n; i++)
        if (map_.find(ids[i]) != static_cast<uint64_t>(i)) throw std::invalid_argument("ids repeat");
}

void RowStore::append(const int64_t* ids, const uint8_t* rows, int64_t n, bool replace) {
    std::unique_lock lock(mutex_);
    for (int64_t i = 0; i < n && !replace; i++)
        if (row_of(ids[i]) >= 0)
            throw std::invalid_argument("ids must be new; already stored: " + std::to_string(ids[i]));
    for (int64_t i = 0; i < n; i++) {
        int64_t row = row_of(ids[i]);
        if (row >= 0 && row < adopted_rows_) {  // mapped memory is not written to
            ids_[row] = -1;
            use_map();
            row = -1;
            live_--;
        }
        if (row < 0) {
            if (!free_.empty()) {
                row = free_.back();
                free_.pop_back();
            } else {
                row = static_cast<int64_t>(ids_.size());
                ids_.push_back(-1);
            }
            if (row != ids[i]) use_map();
            if (mapped_) map_.set(ids[i], row);
            ids_[row] = ids[i];
            live_++;
        }
        std::memcpy(own_row(row), rows + i * row_bytes_, row_bytes_);
    }
}

int64_t RowStore::remove(const int64_t* ids, int64_t n) {
    std::unique_lock lock(mutex_);
    int64_t removed = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = row_of(ids[i]);
        if (row < 0) continue;
        ids_[row] = -1;
        if (mapped_) map_.erase(ids[i]);
        if (row >= adopted_rows_) free_.push_back(row);
        removed++;
    }
    live_ -= removed;
    return removed;
}

int64_t RowStore::size() const {
    std::shared_lock lock(mutex_);
    return live_;
}

int64_t RowStore::memory() const {
    std::shared_lock lock(mutex_);
    return static_cast<int64_t>(chunks_.size()) * chunk_rows() * row_bytes_;
}

void RowStore::get(const int64_t* ids, int64_t n, uint8_t* out) const {
    std::shared_lock lock(mutex_);
    for (int64_t i = 0; i < n; i++) {
        const uint8_t* row = find(ids[i]);
        if (!row)
            throw std::invalid_argument("ids must be stored in the index; not there: [" +
                                        std::to_string(ids[i]) + "]");
        std::memcpy(out + i * row_bytes_, row, row_bytes_);
    }
}

void RowStore::export_rows(std::vector<int64_t>& ids, std::vector<uint8_t>& rows) const {
    std::shared_lock lock(mutex_);
    ids.clear();
    for (int64_t id : ids_)
        if (id >= 0) ids.push_back(id);
    std::sort(ids.begin(), ids.end());
    rows.resize(ids.size() * row_bytes_);
    for (size_t i = 0; i < ids.size(); i++) std::memcpy(&rows[i * row_bytes_], find(ids[i]), row_bytes_);
}

// -- distances ----------------------------------------------------------------------------------------------

namespace {

double number(const uint8_t* row, int64_t j, RowType type) {
    if (type == RowType::u8) return row[j];
    if (type == RowType::i8) return static_cast<int8_t>(row[j]);
    float value;
    if (type == RowType::f32) {
        std::memcpy(&value, row + 4 * j, 4);
        return value;
    }
    uint16_t half;
    std::memcpy(&half, row + 2 * j, 2);
    if (type == RowType::bf16) {
        const uint32_t bits = uint32_t{half} << 16;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    std::memcpy(&value, &magnitude, 4);
    return std::ldexp(half & 0x8000u ? -double{value} : double{value}, 112);
}

// The distance where float32 sums overflow or vanish: a row is never lost for its length.
float distance_in_double(const float* q, const uint8_t* row, int64_t dim, RowType type, RowMetric metric) {
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < dim; j++) {
        const double a = q[j], x = number(row, j, type);
        sum += metric == RowMetric::l2 ? (a - x) * (a - x) : a * x;
        squares += x * x;
    }
    if (metric == RowMetric::cosine && squares > 0) sum /= std::sqrt(squares);
    const double value = metric == RowMetric::l2 ? sum : metric == RowMetric::ip ? -sum : 1 - sum;
    constexpr double most = std::numeric_limits<float>::max();
    return static_cast<float>(std::isnan(value) ? most : std::clamp(value, -most, most));
}

float distance_to(const RerankKernels& kernels, const float* q, const uint8_t* row, int64_t dim, RowType type,
                  RowMetric metric) {
    const float value = kernels.distance(q, row, dim, type, metric);
    return std::isfinite(value) ? value : distance_in_double(q, row, dim, type, metric);
}

constexpr int64_t kAhead = 16;  // candidates whose rows are fetched before they are needed

struct Ranked {
    float distance;
    int64_t id;
    bool operator<(const Ranked& other) const {
        return distance < other.distance || (distance == other.distance && id < other.id);
    }
};

void fetch(const void* row, int64_t bytes) {
    for (int64_t b = 0; row && b < bytes; b += 64) __builtin_prefetch(static_cast<const char*>(row) + b);
}

void write(std::vector<Ranked>& ranked, int64_t k, float* distances, int64_t* found) {
    const int64_t n = std::min<int64_t>(k, ranked.size());
    std::partial_sort(ranked.begin(), ranked.begin() + n, ranked.end());
    for (int64_t i = 0; i < k; i++) {
        distances[i] = i < n ? ranked[i].distance : INFINITY;
        found[i] = i < n ? ranked[i].id : -1;
    }
}

// find(id) gives a row, distance(query number, padded query, candidate number, row) its distance.
template <class Find, class Distance>
void rerank(const RerankArguments& a, int64_t row_bytes, Find&& find, Distance&& distance, float* distances,
            int64_t* found) {
    parallel_for(a.nq, a.threads, [&](int64_t i) {
        std::vector<float> q((a.dim + 15) / 16 * 16, 0.f);
        std::memcpy(q.data(), a.queries + i * a.dim, a.dim * sizeof(float));
        const int64_t* ids = a.ids + i * a.s;
        std::vector<const uint8_t*> rows(a.s);
        for (int64_t j = 0; j < a.s; j++) rows[j] = ids[j] < 0 ? nullptr : find(ids[j]);
        for (int64_t j = 0; j < std::min(kAhead, a.s); j++) fetch(rows[j], row_bytes);
        std::vector<Ranked> ranked;
        ranked.reserve(a.s);
        for (int64_t j = 0; j < a.s; j++) {
            if (j + kAhead < a.s) fetch(rows[j + kAhead], row_bytes);
            if (!rows[j]) continue;
            const float value = distance(q.data(), i * a.s + j, rows[j]);
            if (std::isfinite(value)) ranked.push_back({value, ids[j]});
        }
        write(ranked, a.k, distances + i * a.k, found + i * a.k);
    });
}

}  // namespace

bool SumBooks::product_of(int64_t dim) const {
    bool follow = !wide && (width == 8 || width == 16) && M * int64_t{width} == dim && dim % 16 == 0;
    for (int32_t m = 0; m < M && follow; m++) follow = sizes[m] == 256 && starts[m] == m * width;
    return follow;
}

namespace {

// Adds what a row of codes says to a vector.
void add_entries(const RerankKernels& kernels, const SumBooks& books, const void* codes, int64_t row,
                 int64_t dim, float* sum) {
    constexpr int32_t at_once = 64;
    const float* entries[at_once];
    for (int32_t from = 0; from < books.M; from += at_once) {
        const int32_t count = std::min(at_once, books.M - from);
        for (int32_t i = 0; i < count; i++) {
            const int32_t m = from + i;
            int64_t code;
            if (books.wide) {
                uint16_t wide;
                std::memcpy(&wide, static_cast<const uint8_t*>(codes) + 2 * (row * books.M + m), 2);
                code = wide;
            } else {
                code = static_cast<const uint8_t*>(codes)[row * books.M + m];
            }
            if (code >= books.sizes[m]) code = 0;  // rows from a damaged file stay inside the codebooks
            entries[i] = &books.entries[(books.first[m] + code) * books.width];
        }
        kernels.add_all(sum, entries, &books.starts[from], count, books.width, dim);
    }
}

}  // namespace

void rerank_rows(const RerankArguments& a, const RowStore& rows, RowType type, float* distances,
                 int64_t* found) {
    const RerankKernels& kernels = rerank_kernels();
    auto lock = rows.reading();
    rerank(
        a, rows.row_bytes(), [&](int64_t id) { return rows.find(id); },
        [&](const float* q, int64_t, const uint8_t* row) {
            return distance_to(kernels, q, row, a.dim, type, a.metric);
        },
        distances, found);
}

void rerank_array(const RerankArguments& a, const uint8_t* rows, int64_t n, int64_t stride, RowType type,
                  float* distances, int64_t* found) {
    const RerankKernels& kernels = rerank_kernels();
    rerank(
        a, a.dim * row_item(type),
        [&](int64_t id) { return id < n ? rows + id * stride : static_cast<const uint8_t*>(nullptr); },
        [&](const float* q, int64_t, const uint8_t* row) {
            return distance_to(kernels, q, row, a.dim, type, a.metric);
        },
        distances, found);
}

void rerank_codes(const RerankArguments& a, const RowStore& rows, const SumBooks& books,
                  const CoarsePart& coarse, float* distances, int64_t* found) {
    const RerankKernels& kernels = rerank_kernels();
    auto lock = rows.reading();
    const auto find = [&](int64_t id) { return rows.find(id); };
    const auto of_sum = [&](const float* q, int64_t candidate, const uint8_t* row) {
        thread_local std::vector<float> vector, fine;
        vector.assign(a.dim, 0.f);
        fine.assign(a.dim, 0.f);
        if (coarse.books) add_entries(kernels, *coarse.books, coarse.codes, candidate, a.dim, vector.data());
        if (coarse.lists)
            kernels.add(vector.data(), coarse.centroids + coarse.lists[candidate] * a.dim, a.dim);
        add_entries(kernels, books, row, 0, a.dim, fine.data());
        if (coarse.books || coarse.lists)
            kernels.add(vector.data(), fine.data(), a.dim);
        else
            vector.swap(fine);
        const auto* sum = reinterpret_cast<const uint8_t*>(vector.data());
        return distance_to(kernels, q, sum, a.dim, RowType::f32, a.metric);
    };
    if (coarse.lists || !books.product_of(a.dim) || (coarse.books && !coarse.books->product_of(a.dim))) {
        rerank(a, rows.row_bytes(), find, of_sum, distances, found);
        return;
    }
    const SumBooks* scanned = coarse.books;
    rerank(
        a, rows.row_bytes(), find,
        [&](const float* q, int64_t candidate, const uint8_t* row) {
            ProductPart parts[2] = {{books.entries.data(), books.width, row}, {}};
            if (scanned) {
                const auto* codes = static_cast<const uint8_t*>(coarse.codes) + candidate * scanned->M;
                parts[1] = std::exchange(parts[0], {scanned->entries.data(), scanned->width, codes});
            }
            const float value = kernels.product(q, parts, scanned ? 2 : 1, a.dim, a.metric);
            return std::isfinite(value) ? value : of_sum(q, candidate, row);
        },
        distances, found);
}

}  // namespace annvq
