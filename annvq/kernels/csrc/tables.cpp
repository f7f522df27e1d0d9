#include "tables.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "parallel.h"

namespace annvq {
namespace {

constexpr int kLanes = 16;

// One codebook, transposed to (width, padded) so that neighbouring entries are neighbouring lanes.
struct Transposed {
    std::vector<float> values;
    int64_t padded;
};

Transposed transpose(const float* entries, int64_t size, int64_t width) {
    const int64_t padded = (size + kLanes - 1) / kLanes * kLanes;
    Transposed t{std::vector<float>(padded * width, 0.f), padded};
    for (int64_t k = 0; k < size; k++)
        for (int64_t j = 0; j < width; j++) t.values[j * padded + k] = entries[k * width + j];
    return t;
}

template <bool L2>
void one_table(const float* q, const Transposed& book, int64_t size, int64_t width, float scale, float* out) {
    for (int64_t k0 = 0; k0 < size; k0 += kLanes) {
        float sum[kLanes] = {};
        for (int64_t j = 0; j < width; j++) {
            const float x = q[j];
            const float* c = book.values.data() + j * book.padded + k0;
            for (int l = 0; l < kLanes; l++) {
                const float v = L2 ? x - c[l] : x;
                sum[l] += v * (L2 ? v : c[l]);
            }
        }
        const int64_t end = std::min<int64_t>(kLanes, size - k0);
        for (int64_t l = 0; l < end; l++) out[k0 + l] = L2 ? sum[l] : scale * sum[l];
    }
}

}  // namespace

void build_tables(const float* queries, int64_t nq, int64_t dim, const Codebooks& books, bool l2, float scale,
                  int64_t K, float* out, int threads) {
    std::vector<Transposed> transposed;
    const float* entries = books.entries;
    for (int m = 0; m < books.M; m++) {
        transposed.push_back(transpose(entries, books.sizes[m], books.width));
        entries += static_cast<int64_t>(books.sizes[m]) * books.width;
    }
    parallel_for(nq, threads, [&](int64_t i) {
        for (int m = 0; m < books.M; m++) {
            const float* q = queries + i * dim + books.offsets[m];
            float* o = out + (i * books.M + m) * K;
            if (l2)
                one_table<true>(q, transposed[m], books.sizes[m], books.width, scale, o);
            else
                one_table<false>(q, transposed[m], books.sizes[m], books.width, scale, o);
            std::fill(o + books.sizes[m], o + K, std::numeric_limits<float>::infinity());
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
