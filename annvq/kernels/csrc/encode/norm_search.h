// Codes chosen with the keeping of their norm in mind: a code that is a little further from its vector may
// have a norm that is kept much better, and both errors are errors of the score.
#pragma once
#include <cstdint>
#include <vector>

#include "encode/books.h"
#include "encode/kernels.h"

namespace annvq {

// What offsets of entries leave of ||x^||^2: constant + sum of weights + sum of Gram entries over a code's
// pairs; and what holds that, the levels of a byte, or nothing (no levels). Of ||C + x^||^2 - ||C||^2, the
// norm about a centre C: 2<C, shift> and 2<C, c> of each entry more. Where the term has a share of the error
// ||x - x^||^2 in it, that is once more a sum over entries and pairs.
struct NormModel {
    double constant;
    std::vector<float> weights;  // (padded,)
    std::vector<float> levels;   // ascending
    std::vector<float> middles;  // between neighbouring levels
    float weight;                // of the squared error of offsets alone, where there are no levels
    float error_share;           // of ||x - x^||^2 that is kept with the norm

    NormView view() const;
};

// offsets (sum of sizes,) are what the tables carry of the norm, entry by entry; levels (count,) the byte's.
NormModel norm_model(const EncoderBooks& books, const float* offsets, const float* levels, int64_t count,
                     float weight, float error_share);

// Re-codes pairs of codebooks, in the order of `pairs` (rounds, 2), wherever that lowers
// ||x - x^||^2 + |error of the byte, for ||x^||^2 + error_share * ||x - x^||^2|, or without levels
// ||x - x^||^2 + weight * (what the offsets miss of ||x^||^2)^2.
// Works on n vectors from the codes given (with the Gram matrix only). `centres` (n, width): what each
// vector's norm is about; nullptr: the origin. `rest` (n,): what is added to each vector's norm, such as that
// of other codebooks over other dimensions; nullptr: nothing.
void encode_norm_search(const EncoderBooks& books, const NormModel& model, const float* x,
                        const float* centres, const float* rest, int64_t n, const int32_t* pairs,
                        int32_t rounds, uint16_t* codes, int threads);

}  // namespace annvq
