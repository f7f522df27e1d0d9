#include "common/rows.h"

#include <cmath>
#include <cstring>

namespace annvq {
namespace {

// The sum of squares of a row.
double squared(const float* x, int64_t dim) {
    constexpr int lanes = 8;  // independent sums hide each other's latency
    double sums[lanes] = {};
    int64_t j = 0;
    for (; j + lanes <= dim; j += lanes)
        for (int l = 0; l < lanes; l++) sums[l] += static_cast<double>(x[j + l]) * x[j + l];
    for (; j < dim; j++) sums[0] += static_cast<double>(x[j]) * x[j];
    for (int half = lanes / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sums[l] += sums[l + half];
    return sums[0];
}

// out = x * low. Whether x * high is the same in float.
bool scaled_alike(const float* __restrict x, int64_t dim, double low, double high, float* __restrict out) {
    int alike = 1;
    for (int64_t j = 0; j < dim; j++) {
        out[j] = static_cast<float>(x[j] * low);
        alike &= out[j] == static_cast<float>(x[j] * high);
    }
    return alike != 0;
}

}  // namespace

bool all_finite(const float* x, int64_t n) {
    constexpr uint32_t exponent = 0x7f800000;  // all ones where a number is not
    uint32_t odd = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        odd |= (bits & exponent) == exponent;
    }
    return !odd;
}

bool unit_rows(const float* x, int64_t n, int64_t dim, float* out) {
    // Squares of floats are exact in double. Sums of them, one order or another, are within dim roundings of
    // one another, so their roots within half as many; a root, a quotient or a product rounds once more each.
    const double apart = (static_cast<double>(dim) + 8) * 0x1p-53;
    for (int64_t i = 0; i < n; i++, x += dim, out += dim) {
        const double norm = std::sqrt(squared(x, dim));
        if (!(norm > 0) || !scaled_alike(x, dim, (1 - apart) / norm, (1 + apart) / norm, out)) return false;
    }
    return true;
}

void raise_to_zero(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = x[i] <= 0 ? 0.f : x[i];
}

}  // namespace annvq
