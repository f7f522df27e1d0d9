#include "scan/byte_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace annvq {

ByteTables::ByteTables(const QueryTables& tables, const ScanKernels& kernels)
    : layout_(tables.layout), t_(tables), kernels_(kernels), columns_(layout_.columns()) {
    const bool nibbles = layout_.nibbles();
    split_ = nibbles && kernels.nibbles;
    // More entries than the tables have would not be finer.
    const bool small = !nibbles && layout_.norm() == NormKind::none;
    while (finest_ + 1 < kernels.filter_count && (!small || kernels.filters[finest_].entries < t_.K))
        finest_++;
    filter_ = std::min(kernels.first_choice, finest_);
    least_.reserve(layout_.M() + 1);
    for (int m = 0; m < layout_.M(); m++) add_minimum(t_.luts + m * t_.K, t_.K);
    if (layout_.norm() == NormKind::levels) add_minimum(t_.norm_levels, 256);
}

void ByteTables::add_minimum(const float* table, int64_t size) {
    const float least = kernels_.least(table, size);
    if (!(least > -std::numeric_limits<float>::infinity()))
        throw std::invalid_argument("tables must hold no NaN and no -inf");
    least_.push_back(least);
    least_sum_ += least;
    magnitude_ += std::fabs(static_cast<double>(least));
}

bool ByteTables::bound_above() const {
    if (!kernels_.filter_count) return false;
    return split_ ? layout_.norm() == NormKind::none : entries() == 256 && layout_.norm() != NormKind::floats;
}

void ByteTables::make(double gap, float norm_step) {
    gap_ = std::max(gap, 1e-30);
    bytes_per_gap_ = 253.0 / gap_;
    norm_step_ = norm_step;
    quantize();
}

uint8_t ByteTables::byte_of(double gap) const {
    return static_cast<uint8_t>(std::min(254.0, gap * bytes_per_gap_ + 1e-3));  // at least 0: down
}

double ByteTables::gap_of(int sum) const {
    const int floors = layout_.M() + (layout_.norm() == NormKind::levels);
    return (sum + floors) * gap_ / 253 * (1 + 2e-5);
}

void ByteTables::choose(int filter) {
    filter_ = filter;
    quantize();
}

void ByteTables::quantize() {
    lines_.resize((columns_ * entries() + 63) / 64);
    for (int c = 0; c < columns_; c++) quantize_column(c, lines_.data()->bytes + c * entries());
}

void ByteTables::quantize_column(int column, uint8_t* out) const {
    const float scale = static_cast<float>(253.0 / gap_ * (1 - 1e-5));
    const auto& quantize = kernels_.quantize;
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
    const bool as_is = t_.by_stored_byte && column < layout_.code_columns();
    kernels_.arrange(bytes, as_is ? nullptr : layout_.meaning(column), entries(), out);
}

Filter ByteTables::run() const {
    if (!split_) return kernels_.filters[filter_].run;
    return layout_.norm() == NormKind::none ? kernels_.nibbles : kernels_.nibbles_norm;
}

}  // namespace annvq
