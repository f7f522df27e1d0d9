#include "norm_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace annvq {
namespace {

constexpr int32_t kTried = 16;  // entries of a pair's first codebook that are tried, best first

// Memory that pairs use one after another.
struct Scratch {
    std::vector<float> with_a, with_b;  // Gram sums of entries with the other codes
    std::vector<int32_t> order;
};

// Candidates for codebooks a and b of one vector, the other codes given.
class Pair {
  public:
    Pair(const EncoderBooks& books, const NormModel& model, const float* weights, double constant,
         const float* unary, int32_t a, int32_t b, const uint16_t* codes, Scratch& scratch)
        : books_(books),
          model_(model),
          weights_(weights),
          unary_(unary),
          a_(books.first[a]),
          b_(books.first[b]),
          with_a_(scratch.with_a),
          with_b_(scratch.with_b),
          order_(scratch.order) {
        rest_ = static_cast<float>(constant);
        with_a_.assign(books.sizes[a], 0.f);
        with_b_.assign(books.sizes[b], 0.f);
        for (int32_t o = 0; o < books.M; o++) {
            if (o == a || o == b) continue;
            const int64_t e = books.first[o] + codes[o];
            const float* gram = &books.gram[e * books.padded];
            for (size_t i = 0; i < with_a_.size(); i++) with_a_[i] += gram[a_ + i];
            for (size_t j = 0; j < with_b_.size(); j++) with_b_[j] += gram[b_ + j];
            rest_ += weights_[e];
            for (int32_t p = 0; p < o; p++)
                if (p != a && p != b) rest_ += gram[books.first[p] + codes[p]];
        }
    }

    void improve(uint16_t* code_a, uint16_t* code_b) {
        float best = objective(*code_a, *code_b);
        order_.resize(with_a_.size());
        std::iota(order_.begin(), order_.end(), 0);
        const auto tried = std::min<int64_t>(kTried, order_.size());
        std::partial_sort(order_.begin(), order_.begin() + tried, order_.end(), [&](int32_t i, int32_t j) {
            const float vi = score_a(i), vj = score_a(j);
            return vi < vj || (vi == vj && i < j);
        });
        for (int64_t t = 0; t < tried; t++) {
            const int32_t i = order_[t];
            for (int32_t j = 0; j < static_cast<int32_t>(with_b_.size()); j++) {
                if (!(error(i, j) < best)) continue;  // the byte's error only adds to it
                const float value = objective(i, j);
                if (!(value < best)) continue;
                best = value;
                *code_a = static_cast<uint16_t>(i);
                *code_b = static_cast<uint16_t>(j);
            }
        }
    }

  private:
    float score_a(int32_t i) const { return unary_[a_ + i] + with_a_[i]; }
    float gram(int32_t i, int32_t j) const { return books_.gram[(a_ + i) * books_.padded + b_ + j]; }

    // ||x - x^||^2 less what no candidate changes.
    float error(int32_t i, int32_t j) const {
        return score_a(i) + ((unary_[b_ + j] + with_b_[j]) + gram(i, j));
    }

    float objective(int32_t i, int32_t j) const {
        const float pairs = (with_a_[i] + with_b_[j]) + gram(i, j);
        const float rest = rest_ + ((weights_[a_ + i] + weights_[b_ + j]) + pairs);
        const auto at = std::lower_bound(model_.middles.begin(), model_.middles.end(), rest);
        return error(i, j) + std::fabs(rest - model_.levels[at - model_.middles.begin()]);
    }

    const EncoderBooks& books_;
    const NormModel& model_;
    const float* weights_;
    const float* unary_;
    const int64_t a_, b_;  // first entries
    float rest_;           // what the other codes add to the byte's value
    std::vector<float>&with_a_, &with_b_;
    std::vector<int32_t>& order_;
};

}  // namespace

NormModel norm_model(const EncoderBooks& books, const float* offsets, const float* levels, int64_t count) {
    NormModel model;
    model.constant = 0;
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

void norm_search(const EncoderBooks& books, const NormModel& model, const float* weights, double constant,
                 const float* unary, const int32_t* pairs, int32_t rounds, uint16_t* codes) {
    Scratch scratch;
    for (int32_t t = 0; t < rounds; t++) {
        const int32_t a = pairs[2 * t], b = pairs[2 * t + 1];
        Pair(books, model, weights, constant, unary, a, b, codes, scratch).improve(&codes[a], &codes[b]);
    }
}

}  // namespace annvq
