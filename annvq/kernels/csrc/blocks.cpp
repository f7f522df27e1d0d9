#include "blocks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "parallel.h"

namespace annvq {
namespace {

using Hit = std::pair<float, int64_t>;  // ordered by (distance, id)
constexpr float kInf = std::numeric_limits<float>::infinity();

class Query {
  public:
    Query(const Blocks& blocks, const BlockKernels& kernels, const uint64_t* kept, const float* luts,
          int64_t K, float bias, int64_t k)
        : blocks_(blocks),
          kernels_(kernels),
          kept_(kept),
          luts_(luts),
          K_(K),
          bias_(bias),
          k_(k),
          columns_(blocks.M + (blocks.norm_levels != nullptr)),
          bytes_(columns_ * 256),
          least_(columns_) {
        least_sum_ = bias;
        magnitude_ = std::fabs(static_cast<double>(bias));
        for (int m = 0; m < columns_; m++) {
            const float* t = table(m);
            const float least = kernels.least(t, entries(m));
            if (!(least > -kInf)) throw std::invalid_argument("tables must hold no NaN and no -inf");
            least_[m] = least;
            least_sum_ += least;
            magnitude_ += std::fabs(static_cast<double>(least));
        }
        hopeless_ = std::isinf(least_sum_);  // a table of +inf only: no score is finite
    }

    void scan(int64_t block) {
        if (hopeless_ || closed_) return;
        uint64_t masks[8];
        const uint8_t* codes = blocks_.codes + block * columns_ * kBlock;
        const uint64_t* kept = kept_ ? kept_ + 8 * block : nullptr;
        int allowed = 512;
        if (kept) {
            allowed = 0;
            for (int b = 0; b < 8; b++) allowed += __builtin_popcountll(kept[b]);
            if (!allowed) return;
        }
        // Scoring a few rows costs less than bounding all of them.
        if (everything_ || allowed <= 4) {
            std::fill(masks, masks + 8, ~uint64_t{0});
        } else if (!kernels_.filter(codes, columns_, bytes_.data(), threshold_, masks)) {
            return;
        }
        if (kept)
            for (int b = 0; b < 8; b++) masks[b] &= kept[b];
        const float before = worst_;
        offer(codes, masks, block * kBlock);
        if (worst_ < before || (everything_ && full())) tighten();
    }

    void write(float* distances, int64_t* ids) {
        std::sort_heap(heap_.begin(), heap_.end());
        for (int64_t r = 0; r < k_; r++) {
            const bool found = r < static_cast<int64_t>(heap_.size());
            distances[r] = found ? heap_[r].first : kInf;
            ids[r] = found ? heap_[r].second : -1;
        }
    }

  private:
    bool full() const { return static_cast<int64_t>(heap_.size()) == k_; }
    const float* table(int m) const { return m < blocks_.M ? luts_ + m * K_ : blocks_.norm_levels; }
    int64_t entries(int m) const { return m < blocks_.M ? K_ : 256; }

    void offer(const uint8_t* codes, const uint64_t* masks, int64_t base) {
        const int64_t rows = std::min(kBlock, blocks_.n - base);
        for (int b = 0; b < 8; b++) {
            for (uint64_t w = masks[b]; w; w &= w - 1) {
                const int64_t j = 64 * b + __builtin_ctzll(w), row = base + j;
                if (j >= rows) return;
                float d = luts_[codes[j]];
                for (int m = 1; m < blocks_.M; m++) d += luts_[m * K_ + codes[m * kBlock + j]];
                if (blocks_.norm_levels) d += blocks_.norm_levels[codes[blocks_.M * kBlock + j]];
                d += bias_;
                if (d < kInf) push({d, blocks_.ids ? blocks_.ids[row] : row});
            }
        }
    }

    void push(const Hit& hit) {
        if (!full()) {
            heap_.push_back(hit);
            std::push_heap(heap_.begin(), heap_.end());
        } else if (hit < heap_.front()) {
            std::pop_heap(heap_.begin(), heap_.end());
            heap_.back() = hit;
            std::push_heap(heap_.begin(), heap_.end());
        }
        if (full()) worst_ = heap_.front().first;
    }

    // The distance from the sum of minima to the k-th best, widened by what float summation can err on scores
    // that low: (columns + 1) roundings of at most 2^-24 of the magnitudes summed, which are at most |minima|
    // + gap.
    double gap() const {
        const double raw = worst_ - least_sum_;
        return raw + (columns_ + 3) * 6.1e-8 * (magnitude_ + std::max(raw, 0.0));
    }

    void tighten() {
        if (!full()) return;
        // Sums that could overflow float, and negative ones that could reach -inf, are scored in float
        // throughout.
        if (!(magnitude_ + std::fabs(static_cast<double>(worst_)) < 1e37)) return;
        const double now = gap();
        closed_ = now < 0;
        if (closed_) return;
        if (everything_ || now < 0.8 * scaled_for_) {
            scaled_for_ = std::max(now, 1e-30);
            quantize(static_cast<float>(253.0 / scaled_for_ * (1 - 1e-5)));
            everything_ = false;
        }
        threshold_ = static_cast<uint8_t>(std::min(254.0, std::floor(now * 253.0 / scaled_for_ + 1e-3)));
    }

    void quantize(float scale) {
        for (int m = 0; m < columns_; m++) {
            const float *t = table(m), least = least_[m];
            kernels_.quantize(t, entries(m), least, scale, bytes_.data() + m * 256);
        }
    }

    const Blocks& blocks_;
    const BlockKernels& kernels_;
    const uint64_t* kept_;  // eight words of allowed rows a superblock, or nullptr
    const float* luts_;
    int64_t K_;
    float bias_;
    int64_t k_;
    int columns_;
    std::vector<uint8_t> bytes_;
    std::vector<float> least_;
    std::vector<Hit> heap_;
    double least_sum_ = 0, magnitude_ = 0, scaled_for_ = 0;
    float worst_ = kInf;
    uint8_t threshold_ = 254;
    bool everything_ = true, closed_ = false, hopeless_ = false;
};

std::vector<uint64_t> kept_words(const Blocks& blocks, int64_t count) {
    std::vector<uint64_t> words(count * 8, 0);
    for (int64_t i = 0; i < blocks.n; i++)
        words[i / 64] |= static_cast<uint64_t>(blocks.keep[i] != 0) << (i % 64);
    return words;
}

}  // namespace

void pack_blocks(const uint8_t* codes, int64_t n, int64_t columns, uint8_t* out) {
    std::fill(out, out + (n + kBlock - 1) / kBlock * kBlock * columns, uint8_t{0});
    for (int64_t i = 0; i < n; i++)
        for (int64_t m = 0; m < columns; m++)
            out[(i / kBlock * columns + m) * kBlock + i % kBlock] = codes[i * columns + m];
}

void scan_blocks(const Blocks& blocks, const BlockKernels& kernels, const float* luts, int64_t K,
                 const float* bias, int64_t nq, int64_t k, float* distances, int64_t* ids, int threads) {
    constexpr int64_t group = 16,
                      tile = 4;  // queries that share a pass; superblocks that stay in the first cache
    const int64_t count = (blocks.n + kBlock - 1) / kBlock;
    std::vector<uint64_t> kept;
    if (blocks.keep) kept = kept_words(blocks, count);
    const int64_t share = std::max<int64_t>(1, std::min(group, (nq + threads - 1) / threads));
    parallel_for((nq + share - 1) / share, threads, [&](int64_t g) {
        std::vector<Query> queries;
        for (int64_t q = g * share; q < std::min(nq, (g + 1) * share); q++)
            queries.emplace_back(blocks, kernels, blocks.keep ? kept.data() : nullptr,
                                 luts + q * blocks.M * K, K, bias[q], k);
        for (int64_t b0 = 0; b0 < count; b0 += tile)
            for (Query& query : queries)
                for (int64_t b = b0; b < std::min(count, b0 + tile); b++) query.scan(b);
        for (size_t i = 0; i < queries.size(); i++) {
            const int64_t q = g * share + static_cast<int64_t>(i);
            queries[i].write(distances + q * k, ids + q * k);
        }
    });
}

}  // namespace annvq
