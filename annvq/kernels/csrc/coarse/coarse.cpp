#include "coarse/coarse.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "coarse/bytes.h"
#include "coarse/kernels.h"
#include "common/parallel.h"
#include "encode/kernels.h"

namespace annvq {
namespace {

constexpr int64_t kQueriesTogether = 24;  // queries whose products are formed together

// A list and its score as one number, by (score, list); NaN has its place too.
uint64_t key_of(float score, int32_t list) {
    uint32_t bits;
    score += 0.f;  // -0 ranks as 0
    std::memcpy(&bits, &score, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(list);
}
int32_t list_of(uint64_t key) { return static_cast<int32_t>(key & 0xffffffffu); }
float score_of(uint64_t key) {
    uint32_t bits = static_cast<uint32_t>(key >> 32);
    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    float score;
    std::memcpy(&score, &bits, sizeof score);
    return score;
}

// Into how many groups bound_of divides values; 0: too few values for that.
int64_t groups_of(int64_t n, int64_t count) {
    const int64_t groups = (2 * count + kLanes - 1) / kLanes * kLanes;
    return groups > kMostGroups || n < 2 * groups ? 0 : groups;
}

// A value that at least `count` of the n values do not exceed: the count-th of the minima of groups; they are
// made side by side, sixteen lanes at a time.
float bound_of(const float* values, int64_t n, int64_t count, int64_t groups) {
    float least[kMostGroups];
    std::copy(values, values + groups, least);
    int64_t from = groups;
    for (; from + groups <= n; from += groups)
        for (int64_t g = 0; g < groups; g++) {
            const float value = values[from + g];
            least[g] = value < least[g] ? value : least[g];
        }
    std::nth_element(least, least + (count - 1), least + groups);
    return least[count - 1];
}

// The `count` lowest keys, in order.
void cut(std::vector<uint64_t>& keys, int64_t count) {
    if (static_cast<int64_t>(keys.size()) > count)
        std::nth_element(keys.begin(), keys.begin() + count, keys.end());
    keys.resize(count);
    std::sort(keys.begin(), keys.end());
}

// Fewer lists are compared in float32 at once.
constexpr int64_t kLeastForBytes = 128;
// Where more than one in so many lists may be among the nearest, bounds were in vain.
constexpr int64_t kVain = 4;
// So many lists are put in order by counting how many are nearer than each.
constexpr int64_t kRanked = 256;

}  // namespace

// What queries use one after another.
struct CoarseSearch::Scratch {
    std::vector<float> table;  // (kQueriesTogether, padded)
    std::vector<int32_t> chosen;
    std::vector<float> scores;
    std::vector<uint64_t> keys;
    std::vector<uint8_t> bytes;
};

CoarseSearch::CoarseSearch(const float* centroids, int32_t nlist, int32_t dim)
    : books_(product_books(centroids, &nlist, 1, dim)) {
    if (nlist < kLeastForBytes || dim > (1 << 16)) return;
    bytes_ = byte_centroids(centroids, nlist, dim);
    // Bounds count relative roundings: squares must neither overflow nor be lost to underflow.
    has_bytes_ = bytes_.widest > 1e-12 && bytes_.widest < 1e15;
}

// Runs work(rows, scratch) for rows that are looked up together, n in all.
template <class Work>
void CoarseSearch::for_blocks(int64_t n, int threads, Work&& work) const {
    parallel_for((n + kQueriesTogether - 1) / kQueriesTogether, threads, [&](int64_t block) {
        const int64_t first = block * kQueriesTogether, count = std::min(kQueriesTogether, n - first);
        static thread_local Scratch s;
        s.table.resize(
            std::max<size_t>(s.table.size(), count * std::max<int64_t>(books_.padded, bytes_.padded)));
        std::vector<int64_t> rows(count);
        std::iota(rows.begin(), rows.end(), first);
        work(rows, s);
    });
}

void CoarseSearch::probe(const float* queries, int64_t nq, int64_t nprobe, bool squared, int32_t* lists,
                         float* scores, int threads) const {
    for_blocks(nq, threads, [&](std::vector<int64_t>& left, Scratch& s) {
        const auto write = [&](int64_t row) {
            for (int64_t p = 0; p < nprobe; p++) {
                lists[row * nprobe + p] = list_of(s.keys[p]);
                scores[row * nprobe + p] = score_of(s.keys[p]);
            }
        };
        if (squared && has_bytes_ && coarse_kernels()) probe_bytes(queries, left, nprobe, s, write);
        if (!left.empty()) probe_floats(queries, left, nprobe, squared, s, write);
    });
}

void CoarseSearch::assign(const float* x, int64_t n, int32_t* lists, int threads) const {
    for_blocks(n, threads, [&](std::vector<int64_t>& left, Scratch& s) {
        if (has_bytes_ && coarse_kernels())
            probe_bytes(x, left, 1, s, [&](int64_t row) { lists[row] = list_of(s.keys[0]); });
        if (left.empty()) return;
        products(x, left, true, s);
        for (size_t r = 0; r < left.size(); r++) {
            float* row = &s.table[r * books_.padded];
            std::fill(row + nlist(), row + books_.padded, std::numeric_limits<float>::infinity());
            lists[left[r]] = std::max(0, encode_kernels().argmin(row, books_.padded));  // all may overflow
        }
    });
}

// Scores of all lists, or their inner products, a row of the table for each of `rows`.
void CoarseSearch::products(const float* queries, const std::vector<int64_t>& rows, bool squared,
                            Scratch& s) const {
    const int64_t d = dim();
    std::vector<float> together;
    for (int64_t row : rows) together.insert(together.end(), queries + row * d, queries + (row + 1) * d);
    encode_kernels().products(books_.view(), 0, books_.panel_from[1], together.data(), d,
                              static_cast<int64_t>(rows.size()), squared, s.table.data(), books_.padded);
}

// Compares all lists in float32.
template <class Write>
void CoarseSearch::probe_floats(const float* queries, const std::vector<int64_t>& rows, int64_t nprobe,
                                bool squared, Scratch& s, Write&& write) const {
    const int64_t n = nlist(), groups = groups_of(n, nprobe);
    products(queries, rows, squared, s);
    for (size_t r = 0; r < rows.size(); r++) {
        float* row = &s.table[r * books_.padded];
        for (int64_t i = 0; !squared && i < n; i++) row[i] = -row[i];
        const float limit =
            groups ? bound_of(row, n, nprobe, groups) : std::numeric_limits<float>::infinity();
        s.keys.clear();
        for (int64_t i = 0; i < n; i++)
            if (!(row[i] > limit)) s.keys.push_back(key_of(row[i], static_cast<int32_t>(i)));
        cut(s.keys, nprobe);
        write(rows[r]);
    }
}

// Finds the nearest lists of as many rows as bounds serve; the others stay in `rows`.
template <class Write>
void CoarseSearch::probe_bytes(const float* queries, std::vector<int64_t>& rows, int64_t nprobe, Scratch& s,
                               Write&& write) const {
    const CoarseKernels& kernels = *coarse_kernels();
    const BytesView b = bytes_.view();
    const int64_t n = nlist(), d = dim(), groups = groups_of(n, nprobe), count = rows.size();
    if (!groups || kVain * nprobe > n) return;
    float steps[kQueriesTogether], lengths[kQueriesTogether], errors[kQueriesTogether];
    s.bytes.resize(count * 4 * b.quads);
    s.chosen.resize(b.padded + kByteLanes), s.scores.resize(b.padded);
    for (int64_t r = 0; r < count; r++)
        kernels.quantize(b, queries + rows[r] * d, &s.bytes[r * 4 * b.quads], &steps[r], &lengths[r],
                         &errors[r]);
    kernels.scores(b, s.bytes.data(), steps, count, s.table.data());
    std::vector<int64_t> left;
    for (int64_t r = 0; r < count; r++) {
        // How far a score by bytes may lie from the float32 sum less ||q - mean||^2: by the bytes' errors
        // (the inequality of Cauchy and Schwarz), and by the roundings of sums that (||q - mean|| + widest)^2
        // bounds.
        const double sum = lengths[r] + bytes_.widest, whole = lengths[r] + errors[r];
        const double off =
            2.002 * (errors[r] * bytes_.widest + whole * bytes_.error) + sum * sum * (dim() + 8) * 0x1p-21;
        const float* row = &s.table[r * b.padded];
        const double limit = kernels.bound(row, b.padded, nprobe, groups) + 2 * off;
        const bool finite = limit < 1e37;
        const int64_t found =
            finite ? kernels.at_most(row, b.padded, static_cast<float>(limit), s.chosen.data()) : 0;
        if (found < nprobe || kVain * found > n) {
            left.push_back(rows[r]);
            continue;
        }
        kernels.distances(books_.entries.data(), dim(), queries + rows[r] * d, s.chosen.data(), found,
                          s.scores.data());
        s.keys.resize(found);
        if (found <= kRanked) {  // chosen lists ascend
            int32_t ranks[kRanked];
            kernels.ranks(s.scores.data(), found, ranks);
            for (int64_t i = 0; i < found; i++) s.keys[ranks[i]] = key_of(s.scores[i], s.chosen[i]);
        } else {
            for (int64_t i = 0; i < found; i++) s.keys[i] = key_of(s.scores[i], s.chosen[i]);
            cut(s.keys, nprobe);
        }
        write(rows[r]);
    }
    rows.swap(left);
}

}  // namespace annvq
