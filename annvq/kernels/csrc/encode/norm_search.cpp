#include "encode/norm_search.h"

namespace annvq {

NormView NormModel::view() const {
    const bool free = levels.empty();
    return {constant,
            weights.data(),
            free ? nullptr : levels.data(),
            free ? nullptr : middles.data(),
            static_cast<int64_t>(middles.size()),
            weight,
            error_share};
}

NormModel norm_model(const EncoderBooks& books, const float* offsets, const float* levels, int64_t count,
                     float weight, float error_share) {
    NormModel model;
    model.constant = 0;
    model.weight = weight;
    model.error_share = error_share;
    for (float s : books.shift) model.constant += static_cast<double>(s) * s;
    model.weights.assign(books.padded, 0.f);
    for (int32_t m = 0; m < books.M; m++)
        for (int32_t i = 0; i < books.sizes[m]; i++) {
            const int64_t e = books.first[m] + i;
            double along = 0;
            for (int32_t j = 0; j < books.width; j++)
                along += static_cast<double>(books.shift[j]) * books.entries[e * books.width + j];
            model.weights[e] = static_cast<float>(books.norms[e] + 2 * along - *offsets++);
        }
    for (int64_t i = 0; i < count; i++) model.levels.push_back(levels[i]);
    for (int64_t i = 1; i < count; i++)
        model.middles.push_back(static_cast<float>((static_cast<double>(levels[i - 1]) + levels[i]) / 2));
    return model;
}

}  // namespace annvq
