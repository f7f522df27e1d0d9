#include "query.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
namespace annvq {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int64_t kTileBytes = 16384;
constexpr int64_t kSample = 8;  // superblocks that filters are compared on
constexpr int64_t kRequantizeEvery = 4;
constexpr int kFewRows = 8;      // scoring so few costs less than bounding a superblock
constexpr double kTableNs = 40;  // making a filter's table of one column
constexpr double kRowNs = 4;     // scoring a row that a filter let through, and per codebook
constexpr double kRowColumnNs = 0.8;

int set_bits(const uint64_t* words) {
    int count = 0;
    for (int b = 0; b < 8; b++) count += __builtin_popcountll(words[b]);
    return count;
}

}  // namespace

NormRange norm_range(const float* norms, int64_t n) {
    if (!n) return {0, 0};
    const auto [low, high] = std::minmax_element(norms, norms + n);
    const double step = (static_cast<double>(*high) - *low) / 255;
    return {*low, step < 1e37 ? static_cast<float>(step) : 0.f};
}

uint8_t norm_byte(float norm, NormRange range) {
    if (!(range.step > 0)) return 0;
    const double above = static_cast<double>(norm) - range.low, step = range.step;
    double b = std::floor(std::min(above / step, 255.0));
    while (b > 0 && b * step > above) b--;
    return static_cast<uint8_t>(b);
}

Query::Query(const QueryTables& tables, const BlockKernels& kernels, int64_t k)
    : layout_(tables.layout), t_(tables), kernels_(&kernels), k_(k), columns_(layout_.columns()), best_(k) {
    const bool nibbles = layout_.nibbles(), labels = layout_.meaning(0) != nullptr;
    scorer_ = nibbles  ? &Query::score<true, false>
              : labels ? &Query::score<false, true>
                       : &Query::score<false, false>;
    split_ = nibbles && kernels.nibbles;
    filter_ = kernels.first_choice;
    least_.reserve(layout_.M() + 1);
    const auto add = [&](const float* table, int64_t size) {
        const float least = kernels.least(table, size);
        if (!(least > -kInf)) throw std::invalid_argument("tables must hold no NaN and no -inf");
        least_.push_back(least);
        tables_least_ += least;
        tables_magnitude_ += std::fabs(static_cast<double>(least));
    };
    for (int m = 0; m < layout_.M(); m++) add(t_.luts + m * t_.K, t_.K);
    if (layout_.norm() == NormKind::levels) add(t_.norm_levels, 256);
    hopeless_ = std::isinf(tables_least_);
}

// Makes the threshold fit a segment's bias and norm range. False where no row can matter.
bool Query::enter(const Segment& segment, float bias) {
    if (!(bias > -kInf)) throw std::invalid_argument("bias must hold no NaN and no -inf");
    if (hopeless_ || std::isinf(bias)) return false;
    segment_ = &segment;
    const bool floats = layout_.norm() == NormKind::floats;
    const float low = floats ? segment.norm_low : 0, step = floats ? segment.norm_step : 0;
    if (entered_ && bias == bias_ && low == norm_low_ && step == norm_step_) return !closed_;
    if (step != norm_step_) everything_ = true;
    entered_ = true, bias_ = bias, norm_low_ = low, norm_step_ = step;
    least_sum_ = tables_least_ + low + bias;
    magnitude_ =
        tables_magnitude_ + std::fabs(static_cast<double>(low)) + std::fabs(static_cast<double>(bias));
    tighten();
    return !closed_;
}

void Query::scan(const Segment& segment, float bias, int64_t first, int64_t last) {
    if (!enter(segment, bias)) return;
    const int64_t stride = columns_ * kBlock;
    for (int64_t block = first; block < last && !closed_; block++) {
        const uint8_t* codes = segment.codes + block * stride;
        const uint64_t* live = segment.live ? segment.live + 8 * block : nullptr;
        uint64_t masks[8];
        int from = 0;  // words of the superblock that have been scored
        if (live && set_bits(live) <= kFewRows) {
            offer(codes, block, live, 0, 8);
            continue;
        }
        while (everything_ && from < 8 && !closed_) {
            std::fill(masks, masks + 8, ~uint64_t{0});
            offer(codes, block, live ? live : masks, from, from + 1);
            from++;
        }
        if (from == 8 || closed_) continue;
        const int64_t run = live || from ? 1 : last - block;
        const int64_t skipped = filter()(codes, run, columns_, tables(), threshold_, masks);
        filtered_ += skipped, block += skipped, codes += skipped * stride;
        if (skipped == run) {
            block--;
            continue;
        }
        if (live)
            for (int b = 0; b < 8; b++) masks[b] &= live[b];
        offer(codes, block, masks, from, 8);
    }
    if (!everything_ && !closed_) reconsider_filter(first, last);
}

// Scores the masked rows in words [from, to) of a superblock and keeps what may matter.
void Query::offer(const uint8_t* codes, int64_t block, const uint64_t* masks, int from, int to) {
    const int64_t base = block * kBlock, rows = std::min(kBlock, segment_->n - base);
    uint16_t chosen[kBlock];
    float scores[kBlock];
    int count = 0;
    for (int b = from; b < to; b++)
        for (uint64_t w = masks[b]; w; w &= w - 1)
            chosen[count++] = static_cast<uint16_t>(64 * b + __builtin_ctzll(w));
    while (count && chosen[count - 1] >= rows) count--;
    (this->*scorer_)(codes, base, chosen, count, scores);
    const Hit before = best_.limit();
    for (int i = 0; i < count; i++) {
        const int64_t row = base + chosen[i];
        if (scores[i] <= best_.limit().first)
            best_.push(scores[i], segment_->ids ? segment_->ids[row] : segment_->first_id + row);
    }
    wasted_ += count;
    if (best_.limit() < before) tighten();
}

template <bool nibbles, bool labels>
void Query::score(const uint8_t* codes, int64_t base, const uint16_t* rows, int count, float* out) const {
    constexpr int at_once = 4;  // independent sums hide each other's latency
    const int M = layout_.M();
    for (int i = 0; i < count; i += at_once) {
        const uint8_t* own[at_once];
        for (int j = 0; j < at_once; j++) own[j] = codes + rows[std::min(i + j, count - 1)];
        float sum[at_once];
        for (int m = 0; m < M; m++) {
            const float* table = t_.luts + m * t_.K;
            const uint8_t* meaning = labels ? layout_.meaning(m) : nullptr;
            for (int j = 0; j < at_once; j++) {
                int code = nibbles ? own[j][m / 2 * kBlock] >> (m % 2 * 4) & 15 : own[j][m * kBlock];
                if (labels) code = meaning[code];
                sum[j] = m ? sum[j] + table[code] : table[code];
            }
        }
        const int norm = layout_.code_columns();
        for (int j = 0; j < at_once && i + j < count; j++) {
            if (layout_.norm() == NormKind::levels)
                sum[j] += t_.norm_levels[layout_.meaning(norm)[own[j][norm * kBlock]]];
            if (layout_.norm() == NormKind::floats) sum[j] += segment_->norms_f32[base + rows[i + j]];
            out[i + j] = sum[j] + bias_;
        }
    }
}

void Query::merge(Query&& other) {
    best_.merge(other.best_);
    entered_ = false;  // the next scan fits the threshold anew
}

void Query::write(float* distances, int64_t* ids) {
    const std::vector<Hit>& hits = best_.sorted();
    for (int64_t r = 0; r < k_; r++) {
        const bool found = r < static_cast<int64_t>(hits.size());
        distances[r] = found ? hits[r].first : kInf;
        ids[r] = found ? hits[r].second : -1;
    }
}

// The distance from the sum of minima to the k-th best, widened by what float summation can err on scores
// that low: (columns + 2) roundings of at most 2^-24 of the magnitudes summed, which are at most |minima| +
// gap.
double Query::gap() const {
    const double raw = best_.limit().first - least_sum_;
    return raw + (columns_ + 3) * 6.1e-8 * (magnitude_ + std::max(raw, 0.0));
}

// Follows the limit: closes the segment, makes tables for a gap much narrower than the last, sets the
// threshold.
void Query::tighten() {
    closed_ = false;
    if (!(best_.limit().first < kInf)) return;
    if (everything_) best_.cut();
    const bool unsafe = !(magnitude_ + std::fabs(static_cast<double>(best_.limit().first)) < 1e37);
    // Sums that could overflow float, and negative ones that could reach -inf, are scored in float
    // throughout.
    if (unsafe) {
        everything_ = true;
        return;
    }
    const double now = gap();
    closed_ = now < 0;
    if (closed_ || (!split_ && !kernels_->filter_count)) return;
    const bool pays = filtered_ - quantized_at_ >= kRequantizeEvery || now < 0.5 * scaled_for_;
    if (everything_ || now > scaled_for_ || (now < 0.85 * scaled_for_ && pays)) {
        scaled_for_ = std::max(now, 1e-30);
        everything_ = false;
        quantize();
    }
    threshold_ = static_cast<uint8_t>(std::min(254.0, std::floor(now * 253.0 / scaled_for_ + 1e-3)));
}

void Query::quantize() {
    quantized_at_ = filtered_;
    lines_.resize((columns_ * entries() + 63) / 64);
    for (int c = 0; c < columns_; c++) quantize_column(c, tables() + c * entries());
}

void Query::quantize_column(int column, uint8_t* out) const {
    const float scale = static_cast<float>(253.0 / scaled_for_ * (1 - 1e-5));
    const auto& quantize = kernels_->quantize;
    uint8_t bytes[256], halves[2][256];
    if (column == layout_.code_columns()) {
        if (layout_.norm() == NormKind::levels) {
            quantize(t_.norm_levels, 256, least_.back(), scale, bytes);
        } else {
            const double step = static_cast<double>(norm_step_) * scale;
            for (int b = 0; b < 256; b++) bytes[b] = static_cast<uint8_t>(std::min(255.0, b * step));
        }
    } else if (!layout_.nibbles()) {
        quantize(t_.luts + column * t_.K, t_.K, least_[column], scale, bytes);
    } else {
        std::fill(halves[1], halves[2], uint8_t{0});
        for (int half = 0; half < 2 && 2 * column + half < layout_.M(); half++) {
            const int m = 2 * column + half;
            quantize(t_.luts + m * t_.K, t_.K, least_[m], scale, halves[half]);
        }
        if (split_) {
            for (int half = 0; half < 2; half++) std::copy(halves[half], halves[half] + 16, out + 16 * half);
            return;
        }
        for (int b = 0; b < 256; b++)
            bytes[b] = static_cast<uint8_t>(std::min(255, halves[0][b & 15] + halves[1][b >> 4]));
    }
    kernels_->arrange(bytes, layout_.meaning(column), entries(), out);
}

Filter Query::filter() const {
    if (!split_) return kernels_->filters[filter_].run;
    return layout_.norm() == NormKind::none ? kernels_->nibbles : kernels_->nibbles_norm;
}

// Compares the level's filters on superblocks at hand, each time what the present one has wasted (rows let
// through in vain, or look-ups that a coarser one saves) is well above what comparing costs.
void Query::reconsider_filter(int64_t first, int64_t last) {
    if (split_ || kernels_->filter_count < 2) return;
    const FilterCosts& costs = filter_costs(*kernels_);
    const double spared = filter_ ? costs.column[filter_] - costs.column[filter_ - 1] : 0;
    const double waste =
        wasted_ * row_ns() + static_cast<double>(filtered_) * columns_ * std::max(0.0, spared);
    if (waste < patience_) return;
    const int64_t count = std::min(kSample, last - first);
    double comparing = 0, least = kInf;
    int chosen = filter_;
    for (int f = 0; f < kernels_->filter_count; f++) {
        comparing += columns_ * (costs.column[f] * count + kTableNs);
        if (patience_ == 0) continue;  // the first call only sets what to wait for
        filter_ = f;
        quantize();
        const double cost = costs.column[f] * columns_ * count +
                            row_ns() * let_through(segment_->codes + first * columns_ * kBlock, count);
        if (cost < least) least = cost, chosen = f;
    }
    patience_ = patience_ ? 4 * patience_ : 2 * comparing;
    filter_ = chosen;
    wasted_ = 0, filtered_ = 0;
    quantize();
}

int64_t Query::let_through(const uint8_t* codes, int64_t count) {
    const int64_t stride = columns_ * kBlock;
    int64_t rows = 0;
    uint64_t masks[8];
    for (int64_t b = 0; b < count; b++) {
        b += filter()(codes + b * stride, count - b, columns_, tables(), threshold_, masks);
        if (b < count) rows += set_bits(masks);
    }
    return rows;
}

void scan_together(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last) {
    // Superblocks that stay in the first cache while all queries look at them.
    const int64_t tile = std::max<int64_t>(1, kTileBytes / (queries[0]->columns() * kBlock));
    for (int64_t b = first; b < last; b += tile)
        for (int64_t q = 0; q < count; q++) queries[q]->scan(segment, biases[q], b, std::min(last, b + tile));
}

}  // namespace annvq
