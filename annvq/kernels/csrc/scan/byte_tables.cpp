#include "scan/byte_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "scan/refusals.h"

namespace annvq {
namespace {

constexpr int kLeastColumns = 5;     // of a group
constexpr int kGroupsWanted = 4;     // else all columns make one
constexpr double kLeastReach = 1.4;  // gaps: rows at the gap have more in some groups than in others
constexpr double kMostReach = 2.5;   // gaps: rows further off need not be told apart
constexpr double kFiner = 1.5;       // a scale of groups that is not so much finer is not worth their means

// How many times as much as the mean a group may vary: one of a query's own groups, and one of another
// query's, where sums that saturate sooner would cost more than what the two share.
constexpr double kMostOwn = 2, kMostFollowed = 1.5;

}  // namespace

ByteTables::ByteTables(const QueryTables& tables, const ScanKernels& kernels)
    : layout_(tables.layout), t_(tables), kernels_(kernels), columns_(layout_.columns()) {
    const bool nibbles = layout_.nibbles();
    // More entries than the tables have would not be finer.
    const bool small = !nibbles && layout_.norm() == NormKind::none;
    while (finest_ + 1 < kernels.filter_count && (!small || kernels.filters[finest_].entries < t_.K))
        finest_++;
    // Rows of sums that keep their norm lie closer together.
    filter_ = std::min(kernels.first_choice + (layout_.norm() != NormKind::none), finest_);
    least_.reserve(layout_.M() + 1);
    for (int m = 0; m < layout_.M(); m++) add_minimum(t_.luts + m * t_.K, t_.K);
    if (layout_.norm() == NormKind::levels) add_minimum(t_.norm_levels, 256);
}

void ByteTables::add_minimum(const float* table, int64_t size) {
    const float least = kernels_.least(table, size);
    if (!(least > -std::numeric_limits<float>::infinity())) throw std::invalid_argument(kTablesRefused);
    least_.push_back(least);
    least_sum_ += least;
    magnitude_ += std::fabs(static_cast<double>(least));
}

void ByteTables::make(double gap, float norm_step) {
    gap_ = std::max(gap, 1e-30);
    norm_step_ = norm_step;
    set_scale();
    quantize();
}

// Makes groups where they allow a scale that is finer by enough.
void ByteTables::set_scale() {
    groups_ = 1;
    ends_.clear();
    units_ = 253.0 / gap_;
    int groups = kGroupsWanted;
    if (columns_ < kLeastColumns * groups) return;
    while (columns_ >= 2 * kLeastColumns * groups && groups < 1 << kMaxGroupBits) groups *= 2;
    measure_spreads();
    // What sums of groups need to reach up to: far rows, or as far as matters.
    const double reach = std::clamp(spread_ / gap_, kLeastReach, kMostReach);
    while (groups >= kFiner * reach && !divide(groups)) groups /= 2;
    if (groups < kFiner * reach) return ends_.clear();
    groups_ = groups;
    units_ *= groups / reach;
}

// Groups of neighbouring columns that vary about as much each. False where one of them varies too much.
bool ByteTables::divide(int groups) {
    if (followed_ && followed_->groups_ == groups && fit(followed_->ends_, kMostFollowed)) {
        ends_ = followed_->ends_;
        return true;
    }
    ends_.resize(groups);
    double before = 0;
    int column = 0;
    for (int g = 0; g < groups; g++) {
        while (column < columns_ &&
               (g + 1 == groups || before + spreads_[column] / 2 < spread_ / groups * (g + 1)))
            before += spreads_[column++];
        ends_[g] = static_cast<uint16_t>(column);
    }
    return fit(ends_, kMostOwn);
}

// Whether none of these groups varies more than `most` times as much as the mean of all.
bool ByteTables::fit(const PooledVector<uint16_t>& ends, double most) const {
    int column = 0;
    for (const uint16_t end : ends) {
        double own = 0;
        for (; column < end; column++) own += spreads_[column];
        if (own > most * spread_ / static_cast<double>(ends.size())) return false;
    }
    return true;
}

// About what rows add to the sum in each column, as far as it matters; once, as it need not be exact.
void ByteTables::measure_spreads() {
    if (!spreads_.empty()) return;
    spreads_.resize(columns_);
    for (int c = 0; c < columns_; c++) spread_ += spreads_[c] = spread(c);
}

double ByteTables::spread(int column) const {
    // A few groups of four that follow one another: entries whose numbers share their low bits lie near one
    // another.
    constexpr int64_t step = 68;
    const float most = static_cast<float>(std::min(gap_, 1e38));
    const auto mean = [&](const float* table, int64_t size, float least) {
        float sum[4] = {};
        for (int64_t i = 0; i < size; i += step)
            for (int j = 0; j < 4; j++) sum[j] += std::min(table[std::min(i + j, size - 1)] - least, most);
        return ((sum[0] + sum[1]) + (sum[2] + sum[3])) / static_cast<double>(4 * ((size + step - 1) / step));
    };
    if (is_norm(column))
        return layout_.norm() == NormKind::levels ? mean(t_.norm_levels, 256, least_.back())
                                                  : std::min(127.0 * norm_step_, gap_);
    if (!layout_.nibbles()) return mean(t_.luts + column * t_.K, t_.K, least_[column]);
    double sum = 0;
    for (int m = 2 * column; m < std::min(2 * column + 2, layout_.M()); m++)
        sum += mean(t_.luts + m * t_.K, t_.K, least_[m]);
    return sum;
}

uint8_t ByteTables::sum_of(double gap) const {
    // Each of the means that follow one another may be rounded up by a half.
    const double rounded = __builtin_ctz(static_cast<unsigned>(groups_)) / 2.0;
    return static_cast<uint8_t>(std::min(254.0, gap * units_ / groups_ + rounded + 1e-3));  // gap >= 0: down
}

uint8_t ByteTables::kth_sum(const uint8_t* sums, int count, int64_t k) const {
    int sum = 0;
    for (int bit = 128; bit; bit /= 2)
        if (kernels_.count_at_most(sums, count, static_cast<uint8_t>(sum + bit - 1)) < k) sum += bit;
    return static_cast<uint8_t>(sum);
}

void ByteTables::choose(int filter) {
    filter_ = filter;
    arrange();
}

// All tables in bytes, with 256 entries, by stored byte.
void ByteTables::quantize() {
    const float scale = static_cast<float>(units_ * (1 - 1e-5));
    bytes_.resize(columns_ * 4);
    for (int c = 0; c < columns_; c++) quantize_column(c, scale, bytes_[4 * c].bytes);
    arrange();
}

void ByteTables::quantize_column(int column, float scale, uint8_t* out) const {
    const auto& quantize = kernels_.quantize;
    if (is_norm(column)) {
        if (layout_.norm() == NormKind::levels) {
            quantize(t_.norm_levels, 256, least_.back(), scale, out);
        } else {
            const double step = static_cast<double>(norm_step_) * scale;
            for (int b = 0; b < 256; b++) out[b] = static_cast<uint8_t>(std::min(255.0, b * step));
        }
    } else if (!layout_.nibbles()) {
        quantize(t_.luts + column * t_.K, t_.K, least_[column], scale, out);
        std::fill(out + t_.K, out + 256, uint8_t{255});
    } else {
        for (int half = 0; half < 2; half++, out += 16) {
            const int m = 2 * column + half;
            if (m < layout_.M())
                quantize(t_.luts + m * t_.K, t_.K, least_[m], scale, out);
            else
                std::fill(out, out + 16, uint8_t{0});
        }
    }
}

// The tables as the filter wants them.
void ByteTables::arrange() {
    lines_.resize((columns_ * entries() + 63) / 64);
    for (int c = 0; c < columns_; c++) {
        const uint8_t* bytes = bytes_[4 * c].bytes;
        uint8_t* out = lines_.data()->bytes + c * entries();
        const bool as_is = t_.by_stored_byte && !is_norm(c);
        if (layout_.nibbles() && !is_norm(c))
            std::copy(bytes, bytes + 32, out);
        else
            kernels_.arrange(bytes, as_is ? nullptr : layout_.meaning(c), entries(), out);
    }
}

Filter ByteTables::run() const {
    if (!layout_.nibbles()) return kernels_.filters[filter_].run;
    return layout_.norm() == NormKind::none ? kernels_.nibbles : kernels_.nibbles_norm;
}

FilterOfTwo ByteTables::run_two() const {
    if (!layout_.nibbles()) return kernels_.filters[filter_].run_two;
    return layout_.norm() == NormKind::none ? kernels_.two_nibbles : kernels_.two_nibbles_norm;
}

}  // namespace annvq
