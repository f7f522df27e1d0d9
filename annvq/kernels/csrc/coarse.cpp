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

// The `count` lowest of (values[i], i), in order: candidates under a bound are gathered, and the bound is
// lowered to the best `count` of them whenever there are twice as many.
void lowest(const float* values, int64_t n, int64_t count, std::vector<Near>& best) {
    const int64_t room = std::min(n, std::max<int64_t>(2 * count, 64));
    best.resize(room + 1);
    int64_t held = 0;
    float bound = std::numeric_limits<float>::infinity();
    const auto keep_best = [&] {
        std::nth_element(best.begin(), best.begin() + (count - 1), best.begin() + held);
        bound = best[count - 1].score;  // later lists lose ties
        held = count;
    };
    for (int64_t i = 0; i < n; i++) {
        best[held] = {values[i], static_cast<int32_t>(i)};
        held += values[i] < bound || i < room;
        if (held == room && i + 1 < n) keep_best();
    }
    if (held > count) keep_best();
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
