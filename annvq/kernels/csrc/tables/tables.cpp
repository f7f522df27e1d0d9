#include "tables/tables.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/parallel.h"

namespace annvq {
namespace {

int64_t padded(int64_t size) { return (size + kTableLanes - 1) / kTableLanes * kTableLanes; }

}  // namespace

TableBuilder::TableBuilder(const float* entries, const int32_t* sizes, const int32_t* starts, int64_t M,
                           int64_t width)
    : sizes_(sizes, sizes + M), starts_(starts, starts + M), width_(width) {
    int64_t floats = 0;
    for (int64_t m = 0; m < M; m++) {
        offsets_.push_back(floats);
        floats += padded(sizes[m]) * width;
        total_ += sizes[m];
        K_ = std::max<int64_t>(K_, sizes[m]);
        least_dim_ = std::max<int64_t>(least_dim_, starts[m] + width);
    }
    entries_.assign(entries, entries + total_ * width);
    transposed_.assign(floats, 0.f);
    for (int64_t m = 0; m < M; m++) {
        for (int64_t k = 0; k < sizes[m]; k++, entries += width)
            for (int64_t j = 0; j < width; j++) transposed_[place(m, k, j)] = entries[j];
    }
}

int64_t TableBuilder::place(int64_t m, int64_t k, int64_t j) const {
    const int64_t panel = k / kTablePanel * kTablePanel;
    const int64_t lanes = std::min(kTablePanel, padded(sizes_[m]) - panel);
    return offsets_[m] + panel * width_ + j * lanes + k - panel;
}

bool TableBuilder::holds(const float* entries) const {
    return std::memcmp(entries, entries_.data(), entries_.size() * sizeof(float)) == 0;
}

std::shared_ptr<const TableBuilder> TableBuilder::reordered(const uint8_t* order) const {
    if (total_ != 256 * M() || K_ != 256) return nullptr;
    std::lock_guard<Mutex> lock(reordering_);
    if (!reordered_ || !std::equal(order_.begin(), order_.end(), order)) {
        std::vector<float> entries(total_ * width_);
        for (int64_t i = 0; i < total_; i++)
            for (int64_t j = 0; j < width_; j++)
                entries[i * width_ + j] = transposed_[place(i / 256, order[i], j)];
        order_.assign(order, order + total_);
        reordered_ =
            std::make_shared<const TableBuilder>(entries.data(), sizes_.data(), starts_.data(), M(), width_);
    }
    return reordered_;
}

void TableBuilder::build(const float* queries, int64_t nq, int64_t dim, bool squared, float scale,
                         const float* offsets, float* out, int threads) const {
    const TableKernels& kernels = table_kernels();
    const int64_t M = this->M(), row = M * K_;
    // Queries that share a pass over the codebooks; one codebook of a few queries stays in the second cache.
    const int64_t share = std::max<int64_t>(1, std::min<int64_t>(16, (nq + threads - 1) / threads));
    parallel_for((nq + share - 1) / share, threads, [&](int64_t task) {
        const int64_t first = task * share, count = std::min(share, nq - first);
        for (int64_t m = 0; m < M; m++) {
            const int64_t size = sizes_[m];
            const TransposedBook book{transposed_.data() + offsets_[m], size, padded(size), width_};
            float* o = out + first * row + m * K_;
            kernels.rows(book, queries + first * dim + starts_[m], dim, count, squared, scale,
                         offsets ? offsets + m * K_ : nullptr, o, row);
            for (int64_t i = 0; size < K_ && i < count; i++)
                std::fill(o + i * row + size, o + i * row + K_, std::numeric_limits<float>::infinity());
        }
    });
}

void squared_norms(const float* x, int64_t n, int64_t dim, float* out, int threads) {
    constexpr int64_t chunk = 1024;
    parallel_for((n + chunk - 1) / chunk, threads, [&](int64_t c) {
        for (int64_t i = c * chunk; i < std::min(n, (c + 1) * chunk); i++) {
            double sum = 0;
            for (int64_t j = 0; j < dim; j++) sum += static_cast<double>(x[i * dim + j]) * x[i * dim + j];
            out[i] = static_cast<float>(sum);
        }
    });
}

}  // namespace annvq
