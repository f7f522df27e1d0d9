#include "coarse/bytes.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace annvq {

BytesView ByteCentroids::view() const {
    return {dim, quads, padded, step, mean.data(), norms.data(), start.data(), packed.data()};
}

ByteCentroids byte_centroids(const float* centroids, int64_t nlist, int32_t dim) {
    ByteCentroids b;
    b.dim = dim, b.quads = (dim + 3) / 4;
    constexpr int64_t panel = 4 * kByteLanes;
    b.padded = (nlist + panel - 1) / panel * panel;
    std::vector<double> mean(dim);
    for (int64_t i = 0; i < nlist * dim; i++) mean[i % dim] += centroids[i] / static_cast<double>(nlist);
    b.mean.assign(4 * b.quads, 0.f);
    std::copy(mean.begin(), mean.end(), b.mean.begin());
    const auto centred = [&](int64_t i, int32_t j) {
        return static_cast<double>(centroids[i * dim + j]) - b.mean[j];
    };
    double most = 0;
    for (int64_t i = 0; i < nlist; i++)
        for (int32_t j = 0; j < dim; j++) most = std::max(most, std::fabs(centred(i, j)));
    b.step = static_cast<float>(most / 127);
    b.norms.assign(b.padded, std::numeric_limits<float>::infinity());
    b.start.assign(b.padded, 0);
    b.packed.assign(b.padded * 4 * b.quads, 0);
    for (int64_t i = 0; i < nlist; i++) {
        double squares = 0, errors = 0;
        for (int32_t j = 0; j < dim; j++) {
            const double v = centred(i, j);
            const auto byte = static_cast<int8_t>(
                b.step > 0 ? std::clamp<int64_t>(std::llround(v / b.step), -127, 127) : 0);
            squares += v * v, errors += (v - double{b.step} * byte) * (v - double{b.step} * byte);
            b.start[i] -= 128 * byte;
            b.packed[((i / kByteLanes * b.quads + j / 4) * kByteLanes + i % kByteLanes) * 4 + j % 4] = byte;
        }
        b.norms[i] = static_cast<float>(squares);
        b.widest = std::max(b.widest, std::sqrt(squares)), b.error = std::max(b.error, std::sqrt(errors));
    }
    return b;
}

}  // namespace annvq
