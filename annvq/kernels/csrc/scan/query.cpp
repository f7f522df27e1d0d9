#include "scan/query.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "common/bits.h"
#include "scan/refusals.h"

namespace annvq {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int64_t kTileBytes = 32768;
constexpr int64_t kAloneTile = 32;  // superblocks where a query is alone, columns are few and read in order
constexpr int64_t kAhead = 16384;   // bytes of codes that are fetched ahead, or as many as fill a superblock
constexpr int64_t kNear = 1 << 23;  // bytes of codes that a cache may hold
constexpr int64_t kManyColumns = 40;         // from so many on a tile is
constexpr int64_t kManyTile = 4;             // superblocks, of
constexpr int64_t kManyTileBytes = 1 << 18;  // at most
constexpr int kTablesAtOnce = 24;            // that rows are scored by: they stay in the first cache
constexpr int64_t kSample = 2;               // superblocks that filters are compared on
constexpr int64_t kRequantizeEvery = 4 * kSuperblock;  // rows
constexpr int kFewRows = 8;                            // scoring so few costs less than bounding a superblock
constexpr int64_t kLiveRun = 8;  // superblocks filtered at once where some rows are not live

constexpr int64_t kSharedBytes = 16384;  // of codes are worth finding two queries that share a filter
constexpr int64_t kGrowth = 8;
constexpr int64_t kCutAfter = 12;  // hits, and half of k more
// Rows wait to be scored from kManyColumns on, until there are so many times k, or more than fit, or all that
// was seen has grown so much, or the codes seen since are no longer in the second or third cache.
constexpr int64_t kWaiting = 12, kWaitingGrowth = 4, kWaitingBytes = 1 << 21;
constexpr int kMostWaiting = 8192;
constexpr int kPortion = 64;    // rows scored at a time until there is a threshold
constexpr int kSparedPays = 3;  // lowest sums are worth scoring first where that spares one row in three,
constexpr int64_t kLowestAgain = 4;  // else they are tried again after so many times the rows seen

}  // namespace

Query::Query(const QueryTables& tables, const ScanKernels& kernels, int64_t k)
    : layout_(tables.layout),
      t_(tables),
      kernels_(kernels),
      k_(k),
      columns_(layout_.columns()),
      tables_(tables, kernels),
      hopeless_(std::isinf(tables_.least_sum())),
      best_(k) {
    const bool nibbles = layout_.nibbles(), labels = layout_.meaning(0) && !t_.by_stored_byte;
    scorer_ = nibbles && kernels.score_nibbles && t_.K == 16 ? &Query::score_together
              : nibbles                                      ? &Query::score<true, false>
              : labels                                       ? &Query::score<false, true>
                                                             : &Query::score<false, false>;
    // Until about k superblocks have been seen, a row in vain for every few superblocks decides nothing.
    next_check_ = std::max<int64_t>(32, k) * kSuperblock;
}

// Makes the threshold fit a segment's bias and norm range. False where no row can matter.
bool Query::enter(const Segment& segment, float bias) {
    if (!(bias > -kInf)) throw std::invalid_argument(kBiasRefused);
    if (hopeless_ || std::isinf(bias)) return false;
    if (segment_ != &segment || bias != bias_) score_waiting();
    segment_ = &segment;
    const bool floats = layout_.norm() == NormKind::floats;
    const float low = floats ? segment.norm_low : 0, step = floats ? segment.norm_step : 0;
    if (entered_ && bias == bias_ && low == norm_low_ && step == norm_step_) return !closed_;
    if (step != norm_step_) everything_ = true;
    entered_ = true, bias_ = bias, norm_low_ = low, norm_step_ = step;
    least_sum_ = tables_.least_sum() + low + bias;
    magnitude_ =
        tables_.magnitude() + std::fabs(static_cast<double>(low)) + std::fabs(static_cast<double>(bias));
    tighten();
    return !closed_;
}

void Query::scan(const Segment& segment, float bias, int64_t first, int64_t last) {
    if (!begin(segment, bias)) return;
    const int64_t from = first * kSuperblock, to = std::min(last * kSuperblock, segment.n);
    scan_rows(from, to, 0);
    end(from, to);
}

// Before rows of a segment are offered. False where none of them can matter.
bool Query::begin(const Segment& segment, float bias) {
    const bool fallen = shared_ && best_.lower(shared_->load(std::memory_order_relaxed));
    if (!enter(segment, bias)) return false;
    if (fallen) score_waiting(), tighten();
    return true;
}

// After rows [from, to) have been offered.
void Query::end(int64_t from, int64_t to) {
    if (!everything_ && !closed_) reconsider_filter(from, to);
    if (shared_) tell_limit();
}

void Query::scan_tile(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                      int64_t first, int64_t last, int64_t ahead) {
    const int64_t from = first * kSuperblock, to = std::min(last * kSuperblock, segment.n);
    Query* open[kGroup];
    int left = 0;
    for (int64_t q = 0; q < count; q++) {
        if (q) queries[q]->tables_.follow(&queries[0]->tables_);
        if (queries[q]->begin(segment, biases[q])) open[left++] = queries[q];
    }
    // Each with the next one that looks up the same.
    for (int i = 0; i < left; i++) {
        if (!open[i]) continue;
        int64_t at = from;
        const bool shares = (to - from) * open[i]->columns_ >= kSharedBytes && open[i]->filters() &&
                            open[i]->tables_.run_two();
        for (int j = i + 1; shares && j < left; j++)
            if (open[j] && open[j]->filters() && open[i]->tables_.alike(open[j]->tables_)) {
                Query* const both[2] = {open[i], open[j]};
                at = scan_two(both, from, to, ahead);
                open[j]->scan_rows(at, to, 0);
                open[j]->end(from, to);
                open[j] = nullptr;
                break;
            }
        open[i]->scan_rows(at, to, ahead);
        open[i]->end(from, to);
        ahead = 0;
    }
}

// Rows [from, end) by one filter for both, as far as both have any use for it; returns where that ends.
int64_t Query::scan_two(Query* const both[2], int64_t from, int64_t end, int64_t ahead) {
    Query &a = *both[0], &b = *both[1];
    int64_t at = from;
    while (at < end && a.filters() && b.filters()) {
        const int64_t block = at / kSuperblock, start = block * kSuperblock,
                      last = std::min(a.run_end(at, end), b.run_end(at, end)) - start;
        const FilterTables of_a = a.tables_.for_filter(ahead), of_b = b.tables_.for_filter(0);
        const FilterTables* const tables[2] = {&of_a, &of_b};
        const uint8_t thresholds[2] = {a.threshold_, b.threshold_};
        FilteredRows in_a, in_b;
        FilteredRows* const found[2] = {&in_a, &in_b};
        const int64_t done = start + a.tables_.run_two()(a.segment_->codes + block * a.columns_ * kSuperblock,
                                                         at - start, last, tables, thresholds, found);
        a.take(block, done - at, &in_a);
        b.take(block, done - at, &in_b);
        at = done;
    }
    return at;
}

// What a filter found among so many rows.
void Query::take(int64_t block, int64_t rows, FilteredRows* found) {
    filtered_ += rows;
    seen_ += rows;
    offer_found(block, found);
}

void Query::tell_limit() {
    const float own = best_.limit().first;
    float least = shared_->load(std::memory_order_relaxed);
    while (own < least && !shared_->compare_exchange_weak(least, own, std::memory_order_relaxed)) {
    }
}

void Query::scan_rows(int64_t from, int64_t end, int64_t ahead) {
    const Segment& segment = *segment_;
    for (int64_t at = from; at < end && !closed_;) {
        const int64_t block = at / kSuperblock, start = block * kSuperblock;
        const int64_t block_end = std::min(start + kSuperblock, end);
        if (segment.sparse && count_bits(segment.live + 8 * block, 8) <= kFewRows) {
            offer_live(block);
            seen_ += block_end - at;
            at = block_end;
            continue;
        }
        if (everything_) {
            const int64_t to = std::min(at + kPortion, block_end);
            offer_all(at, to);
            seen_ += to - at;
            at = to;
            continue;
        }
        FilteredRows found;
        const int64_t done = tables_.filter(segment.codes + block * columns_ * kSuperblock, at - start,
                                            run_end(at, end) - start, threshold_, ahead, &found);
        take(block, start + done - at, &found);
        at = start + done;
    }
}

// Where a run of the filter from row `at` on ends, `end` at the latest: the first rows lower the limit fast,
// so runs are no longer than what has been seen. In a superblock whole steps, from a whole one on whole ones.
int64_t Query::run_end(int64_t at, int64_t end) const {
    const int64_t run = std::max(kFilterStep, kGrowth * seen_),
                  block_end = (at / kSuperblock + 1) * kSuperblock;
    if (at % kSuperblock || run < kSuperblock)
        return std::min({at + run / kFilterStep * kFilterStep, block_end, end});
    int64_t blocks = std::min(run / kSuperblock, segment_->sparse ? kLiveRun : kRun);
    for (int64_t b = 1; segment_->sparse && b < blocks && at + b * kSuperblock < end; b++)
        if (count_bits(segment_->live + at / 64 + 8 * b, 8) <= kFewRows) blocks = b;
    return std::min(at + blocks * kSuperblock, end);
}

// All rows [from, to) of a superblock.
void Query::offer_all(int64_t from, int64_t to) {
    FilteredRows all;
    const int64_t block = from / kSuperblock;
    for (int64_t i = from; i < to; i++)
        all.rows[all.count++] = static_cast<uint16_t>(i - block * kSuperblock);
    offer(block, &all);
}

// The live rows of a superblock.
void Query::offer_live(int64_t block) {
    FilteredRows live;
    for (int w = 0; w < 8; w++)
        for (uint64_t bits = segment_->live[8 * block + w]; bits; bits &= bits - 1)
            live.rows[live.count++] = static_cast<uint16_t>(64 * w + __builtin_ctzll(bits));
    while (live.count && block * kSuperblock + live.rows[live.count - 1] >= segment_->n) live.count--;
    offer(block, &live);
}

// Scores rows, numbered from a superblock's first, and keeps what may matter.
void Query::offer(int64_t block, FilteredRows* found) {
    keep_allowed(block * kSuperblock, found);
    if (!found->count) return;
    uint32_t rows[kSuperblock];
    std::copy(found->rows, found->rows + found->count, rows);
    const Hit before = best_.limit();
    add(block, rows, found->count);
    // It pays to have a first threshold early, and later ones before the buffer is full.
    if (found->count >= k_ || best_.added() > kCutAfter + k_ / 2 || (!(before.first < kInf) && tables_.any()))
        best_.cut();
    if (best_.limit() < before) score_waiting(), tighten();
}

// Rows that a filter let through. Where a row's codes are many they wait for others: of more rows fewer need
// be scored.
void Query::offer_found(int64_t block, FilteredRows* found) {
    keep_allowed(block * kSuperblock, found);
    if (columns_ < kManyColumns) {
        uint32_t rows[kRoom + FilteredRows::kSlack];
        std::copy(found->rows, found->rows + found->count, rows);
        return settle(block, rows, found->sums, found->count);
    }
    if (found->count) waiting_.append(block, *found);
    const int64_t most = std::min<int64_t>(kWaiting * k_ + kPortion, kMostWaiting - kRoom);
    if (waiting_.count() > most || seen_ > kWaitingGrowth * waiting_since_ ||
        (seen_ - waiting_since_) * columns_ > kWaitingBytes)
        score_waiting();
}

void Query::score_waiting() {
    waiting_since_ = seen_;
    const int count = waiting_.count();
    waiting_.clear();
    settle(waiting_.block(), waiting_.rows(), waiting_.sums(), count);
}

// Scores those of the rows that may matter and keeps what may. Rows are written over.
void Query::settle(int64_t block, uint32_t* rows, const uint8_t* sums, int count) {
    if (!count) return;
    const Hit before = best_.limit();
    if (count >= 2 * k_ + kFewRows && seen_ >= lowest_again_) count = score_lowest(block, rows, sums, count);
    add(block, rows, count);
    if (count >= k_ || best_.added() > kCutAfter + k_ / 2) best_.cut();
    if (best_.limit() < before) tighten();
}

// Of many rows, those with the lowest sums are scored first, as the limit that they bring may spare most of
// the others. It seldom does where thousands are about as near as the nearest, so then it waits. Returns how
// many are left to score, which come first then.
int Query::score_lowest(int64_t block, uint32_t* rows, const uint8_t* sums, int count) {
    // Those whose sums are above one limit and at most another.
    const auto pick = [&](int above, int limit, uint32_t* out) {
        int picked = 0;
        for (int i = 0; i < count; i++) {
            out[picked] = rows[i];
            picked += sums[i] > above && sums[i] <= limit;  // no branch: no guess
        }
        return picked;
    };
    const int low = tables_.kth_sum(sums, count, k_);
    uint32_t lowest[kMostWaiting];
    const int taken = pick(-1, low, lowest);
    add(block, lowest, taken);
    best_.cut();
    const double now = gap();
    const int left = pick(low, now < 0 ? -1 : tables_.sum_of(now), rows);
    if (kSparedPays * (count - taken - left) < count) lowest_again_ = kLowestAgain * seen_;
    return left;
}

void Query::add(int64_t block, const uint32_t* rows, int count) {
    if (!count) return;
    const int64_t base = block * kSuperblock;
    float scores[kMostWaiting];
    (this->*scorer_)(block, rows, count, scores);
    if (segment_->ids)
        best_.add(scores, count, [&](int64_t i) { return place_of(segment_->ids + base + rows[i]); });
    else
        best_.add(scores, count, [&](int64_t i) { return segment_->first_id + base + rows[i]; });
    let_through_ += count;
}

// Drops rows that may not be returned.
void Query::keep_allowed(int64_t base, FilteredRows* found) const {
    const Segment& s = *segment_;
    uint16_t* rows = found->rows;
    uint8_t* sums = found->sums;
    if (const uint64_t* live = s.live ? s.live + base / 64 : nullptr) {
        int kept = 0;
        for (int i = 0; i < found->count; i++) {
            const uint16_t row = rows[i];
            rows[kept] = row, sums[kept] = sums[i];
            kept += live[row / 64] >> (row % 64) & 1;
        }
        found->count = kept;
    }
    if (!s.allowed) return;
    int kept = 0;
    for (int i = 0; i < found->count; i++) {
        const int64_t row = base + rows[i], id = s.ids ? s.ids[row] : s.first_id + row;
        rows[kept] = rows[i], sums[kept] = sums[i];
        kept += id >= 0 && id < s.allowed_size && s.allowed[id];
    }
    found->count = kept;
}

// Adds to the sum of a row's entries what comes after them.
float Query::completed(float sum, int64_t block, uint32_t row) const {
    if (layout_.norm() == NormKind::levels) {
        const int column = layout_.code_columns();
        const int64_t at = (int64_t{row} / kSuperblock * columns_ + column) * kSuperblock + row % kSuperblock;
        sum += t_.norm_levels[layout_.meaning(column)[segment_->codes[block * columns_ * kSuperblock + at]]];
    }
    if (layout_.norm() == NormKind::floats) sum += segment_->norms_f32[block * kSuperblock + row];
    return sum + bias_;
}

void Query::score_together(int64_t block, const uint32_t* rows, int count, float* out) const {
    const int64_t stride = columns_ * kSuperblock;
    kernels_.score_nibbles(segment_->codes + block * stride, stride, rows, count, t_.luts, layout_.M(), out);
    if (layout_.norm() == NormKind::none)
        for (int i = 0; i < count; i++) out[i] += bias_;
    else
        for (int i = 0; i < count; i++) out[i] = completed(out[i], block, rows[i]);
}

template <bool nibbles, bool labels>
void Query::score(int64_t block, const uint32_t* rows, int count, float* out) const {
    constexpr int at_once = 4;  // independent sums hide each other's latency
    const int M = layout_.M();
    const int64_t stride = columns_ * kSuperblock;
    const uint8_t* codes = segment_->codes + block * stride;
    const int tables = nibbles ? M : kTablesAtOnce;  // those of nibbles are small
    const bool bare = layout_.norm() == NormKind::none;
    for (int first = 0; first < M; first += tables) {
        const int last = std::min(M, first + tables);
        for (int i = 0; i < count; i += at_once) {
            const uint8_t* own[at_once];
            float sum[at_once] = {};
            for (int j = 0; j < at_once; j++) {
                const int at = std::min(i + j, count - 1);
                const int64_t row = rows[at];
                own[j] = codes + row / kSuperblock * stride + row % kSuperblock;
                if (first) sum[j] = out[at];
            }
            if constexpr (nibbles) {
                const float* table = t_.luts + first * t_.K;
                for (int m = first; m + 1 < last; m += 2, table += 2 * t_.K)
                    for (int j = 0; j < at_once; j++) {
                        const int two = own[j][m / 2 * kSuperblock];
                        sum[j] = (sum[j] + table[two & 15]) + table[t_.K + (two >> 4)];
                    }
                if (last % 2)
                    for (int j = 0; j < at_once; j++) sum[j] += table[own[j][last / 2 * kSuperblock] & 15];
            } else {
                for (int m = first; m < last; m++) {
                    const float* table = t_.luts + m * t_.K;
                    const uint8_t* meaning = labels ? layout_.meaning(m) : nullptr;
                    for (int j = 0; j < at_once; j++) {
                        int code = own[j][m * kSuperblock];
                        if (labels) code = meaning[code];
                        sum[j] = m ? sum[j] + table[code] : table[code];
                    }
                }
            }
            for (int j = 0; j < at_once && i + j < count; j++)
                out[i + j] = last < M ? sum[j]
                             : bare   ? sum[j] + bias_
                                      : completed(sum[j], block, rows[i + j]);
        }
    }
}

void Query::merge(Query&& other) {
    score_waiting(), other.score_waiting();
    best_.merge(other.best_);
    entered_ = false;  // the next scan fits the threshold anew
}

void Query::write(float* distances, int64_t* ids) {
    score_waiting();
    const std::vector<Hit> hits = best_.sorted();
    for (int64_t r = 0; r < k_; r++) {
        const bool found = r < static_cast<int64_t>(hits.size());
        distances[r] = found ? hits[r].first : kInf;
        ids[r] = found ? hits[r].second : -1;
    }
}

// A distance from the sum of minima, widened by what float summation can err on scores that low:
// (columns + 2) roundings of at most 2^-24 of the magnitudes summed, which are at most |minima| + distance.
double Query::widened(double raw) const {
    return raw + (columns_ + 3) * 6.1e-8 * (magnitude_ + std::max(raw, 0.0));
}

// To the k-th best.
double Query::gap() const { return widened(best_.limit().first - least_sum_); }

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
    const double now = gap(), widest = now + std::max(0.0, static_cast<double>(bias_) - expected_bias_);
    closed_ = now < 0;
    if (closed_ || !tables_.any()) return;
    const bool pays = filtered_ - quantized_at_ >= kRequantizeEvery || widest < 0.5 * tables_.gap();
    if (everything_ || now > tables_.gap() || (widest < 0.85 * tables_.gap() && pays)) {
        everything_ = false;
        quantized_at_ = filtered_;
        tables_.make(widest, norm_step_);
    }
    threshold_ = tables_.sum_of(now);
}

void Query::choose_filter(int filter) {
    quantized_at_ = filtered_;
    tables_.choose(filter);
}

// Now and then tries the filter next to the present one on superblocks at hand: the finer where scoring rows
// let through costs more than the finer look-ups would, else the coarser.
void Query::reconsider_filter(int64_t first, int64_t last) {
    if (!tables_.has_choice() || seen_ < next_check_ || first >= last) return;
    score_waiting();
    next_check_ = 2 * seen_;
    const int64_t filtered = std::exchange(filtered_, 0), rows = std::exchange(let_through_, 0);
    quantized_at_ = 0;
    const auto price = [&](int f) { return tables_.column_ns(f) * columns_; };
    const int before = tables_.chosen(), finer = before + 1, coarser = before - 1;
    int other = before;
    if (finer <= tables_.finest() &&
        rows * row_ns() > filtered / static_cast<double>(kSuperblock) * (price(finer) - price(before)))
        other = finer;
    else if (coarser >= 0 && price(coarser) < 0.9 * price(before))
        other = coarser;
    if (other == before) return;
    const int64_t sample = std::min(kSample * kSuperblock, last - first);
    const auto cost = [&](int f) {
        FilteredRows found;
        const int64_t done =
            tables_.filter(segment_->codes + first * columns_, 0, sample, threshold_, 0, &found);
        return (price(f) / kSuperblock * static_cast<double>(done) + row_ns() * found.count) /
               static_cast<double>(done);
    };
    const double present = cost(before);
    choose_filter(other);
    if (!(cost(other) < present)) choose_filter(before);
}

void scan_together(Query* const* queries, const float* biases, int64_t count, const Segment& segment,
                   int64_t first, int64_t last) {
    // Superblocks that stay in the first cache while all queries look at them, or, where a single one fills
    // it, in the second: then a query's tables stay in the first, and of more rows fewer need be scored.
    const bool in_order = queries[0]->kernels().in_order;
    const int64_t columns = queries[0]->columns(), block = columns * kSuperblock,
                  few = in_order && count == 1 ? kAloneTile : 1,
                  many = std::min(kManyTile, kManyTileBytes / block),
                  tile = std::max({int64_t{1}, kTileBytes / block, columns < kManyColumns ? few : many});
    // The first query fetches codes ahead. Some filters look up rows of all columns, then the next rows:
    // these lie near, but are wanted later. Long runs in order a processor foresees itself, unless they come
    // from memory.
    const bool foreseen = in_order && columns >= kManyColumns && (last - first) * block <= kNear;
    const int64_t ahead = foreseen ? 0 : (kAhead + block - 1) / block * block;
    for (int64_t b = first; b < last; b += tile)
        for (int64_t q = 0; q < count; q += kGroup)
            Query::scan_tile(queries + q, biases + q, std::min(kGroup, count - q), segment, b,
                             std::min(last, b + tile), q || b + tile >= last ? 0 : ahead);
}

}  // namespace annvq
