#include "coarse.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "parallel.h"

namespace annvq {
namespace {

constexpr int64_t kBlock = 24;  // queries whose products are formed together

struct Near {
    float score;
    int32_t list;
    bool operator<(const Near& other) const {
        return score < other.score || (score == other.score && list < other.list);
    }
};

// A value that at least `count` of the n values do not exceed: the count-th of the minima of groups, where
// there are groups enough; they are made side by side, sixteen lanes at a time.
float bound_of(const float* values, int64_t n, int64_t count) {
    constexpr int64_t kMost = 1024;
    float least[kMost];
    const int64_t groups = (2 * count + kLanes - 1) / kLanes * kLanes;
    if (groups > kMost || n < 2 * groups) return std::numeric_limits<float>::infinity();
    std::copy(values, values + groups, least);
    int64_t from = groups;
    for (; from + groups <= n; from += groups)
        for (int64_t g = 0; g < groups; g++) least[g] = std::min(least[g], values[from + g]);
    std::nth_element(least, least + (count - 1), least + groups);
    return least[count - 1];
}

// The `count` lowest of (values[i], i), in order.
void lowest(const float* values, int64_t n, int64_t count, std::vector<Near>& best) {
    const float bound = bound_of(values, n, count);
    best.resize(n);
    int64_t held = 0;
    for (int64_t i = 0; i < n; i++) {
        best[held] = {values[i], static_cast<int32_t>(i)};
        held += values[i] <= bound;
    }
    if (held > count) std::nth_element(best.begin(), best.begin() + count, best.begin() + held);
    std::sort(best.begin(), best.begin() + count);
    best.resize(count);
}

}  // namespace

CoarseSearch::CoarseSearch(const float* centroids, int32_t nlist, int32_t dim)
    : books_(product_books(centroids, &nlist, 1, dim)) {}

void CoarseSearch::probe(const float* queries, int64_t nq, int64_t nprobe, bool squared, int32_t* lists,
                         float* scores, int threads) const {
    const EncodeKernels& kernels = encode_kernels();
    const int64_t n = nlist(), d = dim();
    parallel_for((nq + kBlock - 1) / kBlock, threads, [&](int64_t block) {
        const int64_t first = block * kBlock, rows = std::min(kBlock, nq - first);
        std::vector<float> table(rows * books_.padded);
        std::vector<Near> best;
        kernels.products(books_, 0, books_.panel_from[1], queries + first * d, d, rows, squared, table.data(),
                         books_.padded);
        for (int64_t r = 0; r < rows; r++) {
            float* row = &table[r * books_.padded];
            if (!squared)
                for (int64_t i = 0; i < n; i++) row[i] = -row[i];
            lowest(row, n, nprobe, best);
            for (int64_t p = 0; p < nprobe; p++) {
                lists[(first + r) * nprobe + p] = best[p].list;
                scores[(first + r) * nprobe + p] = best[p].score;
            }
        }
    });
}

}  // namespace annvq
