#include "scan/norm_bytes.h"

#include <algorithm>
#include <cmath>

namespace annvq {

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

}  // namespace annvq
