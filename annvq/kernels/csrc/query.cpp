#include "query.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "cpu.h"

namespace annvq {

const BlockKernels* block_kernels() {
#if defined(__x86_64__)
    if (simd_level() == SimdLevel::avx512vbmi) return &vbmi_block_kernels;
#endif
    return nullptr;
}

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
    : layout_(tables.layout),
      t_(tables),
      kernels_(&kernels),
      k_(k),
      columns_(layout_.columns()),
      bytes_(columns_ * 256) {
    const auto add = [&](const float* table, int64_t size) {
        const float least = kernels.least(table, size);
        if (!(least > -kInfinity)) throw std::invalid_argument("tables must hold no NaN and no -inf");
        least_.push_back(least);
        tables_least_ += least;
        tables_magnitude_ += std::fabs(static_cast<double>(least));
    };
    for (int m = 0; m < layout_.M(); m++) add(t_.luts + m * t_.K, t_.K);
    if (layout_.norm() == NormKind::levels) add(t_.norm_levels, 256);
    hopeless_ = std::isinf(tables_least_);  // a table of +inf only: no score is finite
}

// Makes the threshold fit a segment's bias and norm range. False where no row can matter.
bool Query::enter(const Segment& segment, float bias) {
    if (!(bias > -kInfinity)) throw std::invalid_argument("bias must hold no NaN and no -inf");
    if (hopeless_ || std::isinf(bias)) return false;
    segment_ = &segment;
    const bool floats = layout_.norm() == NormKind::floats;
    const float low = floats ? segment.norm_low : 0, step = floats ? segment.norm_step : 0;
    if (bias == bias_ && low == norm_low_ && step == norm_step_ && entered_) return !closed_;
    const bool restep = step != norm_step_;
    entered_ = true;
    bias_ = bias, norm_low_ = low, norm_step_ = step;
    least_sum_ = tables_least_ + low + bias;
    magnitude_ =
        tables_magnitude_ + std::fabs(static_cast<double>(low)) + std::fabs(static_cast<double>(bias));
    if (restep) everything_ = true;
    tighten();
    return !closed_;
}

void Query::scan(const Segment& segment, float bias, int64_t first, int64_t last) {
    if (!enter(segment, bias)) return;
    for (int64_t block = first; block < last; block++) scan_block(block);
}

void Query::scan_block(int64_t block) {
    if (closed_) return;
    uint64_t masks[8];
    const uint8_t* codes = segment_->codes + block * columns_ * kBlock;
    const uint64_t* live = segment_->live ? segment_->live + 8 * block : nullptr;
    int allowed = kBlock;
    if (live) {
        allowed = 0;
        for (int b = 0; b < 8; b++) allowed += __builtin_popcountll(live[b]);
        if (!allowed) return;
    }
    // Scoring a few rows costs less than bounding all of them.
    if (everything_ || allowed <= 4) {
        std::fill(masks, masks + 8, ~uint64_t{0});
    } else if (!kernels_->filter(codes, columns_, bytes_.data(), threshold_, masks)) {
        return;
    }
    if (live)
        for (int b = 0; b < 8; b++) masks[b] &= live[b];
    const float before = worst_;
    offer(codes, masks, block * kBlock);
    if (worst_ < before || (everything_ && full())) tighten();
}

void Query::offer(const uint8_t* codes, const uint64_t* masks, int64_t base) {
    const Segment& s = *segment_;
    const int64_t rows = std::min(kBlock, s.n - base);
    for (int b = 0; b < 8; b++) {
        for (uint64_t w = masks[b]; w; w &= w - 1) {
            const int64_t j = 64 * b + __builtin_ctzll(w), row = base + j;
            if (j >= rows) return;
            const float d = score(codes + j, row);
            if (d < kInfinity) push({d, s.ids ? s.ids[row] : s.first_id + row});
        }
    }
}

float Query::score(const uint8_t* codes, int64_t row) const {
    float d = 0;
    for (int m = 0; m < layout_.M(); m++) {
        int code;
        if (layout_.nibbles()) {
            code = codes[m / 2 * kBlock] >> (m % 2 * 4) & 15;
        } else {
            const uint8_t* meaning = layout_.meaning(m);
            code = meaning ? meaning[codes[m * kBlock]] : codes[m * kBlock];
        }
        const float entry = t_.luts[m * t_.K + code];
        d = m ? d + entry : entry;
    }
    const int norm = layout_.code_columns();
    if (layout_.norm() == NormKind::levels) d += t_.norm_levels[layout_.meaning(norm)[codes[norm * kBlock]]];
    if (layout_.norm() == NormKind::floats) d += segment_->norms_f32[row];
    return d + bias_;
}

void Query::push(const Hit& hit) {
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

void Query::merge(Query&& other) {
    for (const Hit& hit : other.heap_) push(hit);
    entered_ = false;  // the next scan fits the threshold anew
}

void Query::write(float* distances, int64_t* ids) {
    std::sort_heap(heap_.begin(), heap_.end());
    for (int64_t r = 0; r < k_; r++) {
        const bool found = r < static_cast<int64_t>(heap_.size());
        distances[r] = found ? heap_[r].first : kInfinity;
        ids[r] = found ? heap_[r].second : -1;
    }
}

// The distance from the sum of minima to the k-th best, widened by what float summation can err on scores
// that low: (columns + 2) roundings of at most 2^-24 of the magnitudes summed, which are at most |minima| +
// gap.
double Query::gap() const {
    const double raw = worst_ - least_sum_;
    return raw + (columns_ + 3) * 6.1e-8 * (magnitude_ + std::max(raw, 0.0));
}

void Query::tighten() {
    closed_ = false;
    if (!full()) return;
    // Sums that could overflow float, and negative ones that could reach -inf, are scored in float
    // throughout.
    if (!(magnitude_ + std::fabs(static_cast<double>(worst_)) < 1e37)) {
        everything_ = true;
        return;
    }
    const double now = gap();
    closed_ = now < 0;
    if (closed_) return;
    if (everything_ || now < 0.8 * scaled_for_ || now > scaled_for_) {
        scaled_for_ = std::max(now, 1e-30);
        quantize(static_cast<float>(253.0 / scaled_for_ * (1 - 1e-5)));
        everything_ = false;
    }
    threshold_ = static_cast<uint8_t>(std::min(254.0, std::floor(now * 253.0 / scaled_for_ + 1e-3)));
}

void Query::quantize(float scale) {
    uint8_t own[2][256];
    for (int c = 0; c < columns_; c++) {
        uint8_t* out = bytes_.data() + c * 256;
        std::fill(own[0], own[2], uint8_t{0});
        if (c == layout_.code_columns()) {
            if (layout_.norm() == NormKind::levels) {
                kernels_->quantize(t_.norm_levels, 256, least_.back(), scale, own[0]);
            } else {
                const double step = static_cast<double>(norm_step_) * scale;
                for (int b = 0; b < 256; b++) own[0][b] = static_cast<uint8_t>(std::min(255.0, b * step));
            }
        } else if (layout_.nibbles()) {
            for (int half = 0; half < 2 && 2 * c + half < layout_.M(); half++) {
                const int m = 2 * c + half;
                kernels_->quantize(t_.luts + m * t_.K, t_.K, least_[m], scale, own[half]);
            }
            for (int b = 0; b < 256; b++)
                out[b] = static_cast<uint8_t>(std::min(255, own[0][b & 15] + own[1][b >> 4]));
            continue;
        } else {
            kernels_->quantize(t_.luts + c * t_.K, t_.K, least_[c], scale, own[0]);
        }
        const uint8_t* meaning = layout_.meaning(c);
        for (int b = 0; b < 256; b++) out[b] = own[0][meaning ? meaning[b] : b];
    }
}

void scan_together(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last) {
    constexpr int64_t tile = 4;  // superblocks that stay in the first cache
    for (int64_t b = first; b < last; b += tile)
        for (int64_t q = 0; q < count; q++) queries[q]->scan(segment, biases[q], b, std::min(last, b + tile));
}

}  // namespace annvq
