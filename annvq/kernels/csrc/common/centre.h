// Where a codebook lies: what is taken off its entries so that float32 sums of them stay small.
#pragma once
#include <cstdint>

namespace annvq {

// The mean of the entries (count, width) into out (width,), but for entries more than a thousand times as far
// from the coordinates' medians as most are: one such would move the mean far from all others.
void book_centre(const float* entries, int64_t count, int64_t width, float* out);

}  // namespace annvq
