#include "common/centre.h"

#include <algorithm>
#include <vector>

namespace annvq {
namespace {

constexpr double kFarOut = 1e6;  // of squared distances, over their median

// Of some values, which change places: the upper one of the two in the middle where they are even.
template <class T>
T median(std::vector<T>& values) {
    const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// Squared distances of entries to the median of each coordinate.
std::vector<double> spreads(const float* entries, int64_t count, int64_t width) {
    std::vector<double> out(count, 0.0);
    std::vector<float> column(count);
    for (int64_t j = 0; j < width; j++) {
        for (int64_t k = 0; k < count; k++) column[k] = entries[k * width + j];
        const double middle = median(column);
        for (int64_t k = 0; k < count; k++) {
            const double off = entries[k * width + j] - middle;
            out[k] += off * off;
        }
    }
    return out;
}

}  // namespace

void book_centre(const float* entries, int64_t count, int64_t width, float* out) {
    const std::vector<double> spread = spreads(entries, count, width);
    std::vector<double> ordered = spread;
    const double usual = median(ordered);
    std::vector<double> total(width, 0.0);
    int64_t kept = 0;
    for (int64_t k = 0; k < count; k++) {
        if (usual > 0 && spread[k] > kFarOut * usual) continue;
        kept++;
        for (int64_t j = 0; j < width; j++) total[j] += entries[k * width + j];
    }
    for (int64_t j = 0; j < width; j++) out[j] = static_cast<float>(total[j] / kept);
}

}  // namespace annvq
