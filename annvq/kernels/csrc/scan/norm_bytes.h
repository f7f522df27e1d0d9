// Bytes that stand for float norms in a filter: each at most its norm.
#pragma once
#include <cstdint>

namespace annvq {

// Byte b stands for low + step * b.
struct NormRange {
    float low, step;
};
// The range of finite norms (n,).
NormRange norm_range(const float* norms, int64_t n);
// The byte of a norm that is at least the range's low; above the range 255.
uint8_t norm_byte(float norm, NormRange range);

}  // namespace annvq
