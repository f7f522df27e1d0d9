// Rows of floats: looked at, and brought to unit length.
#pragma once
#include <cstdint>

namespace annvq {

// Whether n numbers are finite.
bool all_finite(const float* x, int64_t n);

// out (n, dim): rows over their Euclidean norms, as they come out whatever the order in which squares are
// added up in double. False, with some of `out` written, where that order may tell or a row is zero.
bool unit_rows(const float* x, int64_t n, int64_t dim, float* out);

// Numbers below zero, and -0, become zero; NaN stays.
void raise_to_zero(float* x, int64_t n);

}  // namespace annvq
