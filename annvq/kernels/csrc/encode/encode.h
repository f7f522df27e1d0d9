// Encoders: vectors to codes for product, residual and additive codebooks.
//
// All arithmetic is float32 in a fixed order without fused multiply-add, sixteen lanes across entries at
// every SIMD level, so codes never depend on the SIMD level, the batch or the threads.
//
// The additive family never forms residuals for its searches where it can avoid it. For a partial sum S of
// entries,
//     ||x - S - c||^2 - ||x - S||^2 = ||c||^2 - 2<x, c> + sum_{c_j in S} 2<c_j, c>,
// so one product of x with every entry and rows of the codebooks' Gram matrix score every candidate.
// Codebooks whose Gram matrix would be too large score residuals against entries instead ("direct").
#pragma once
#include <cstdint>

#include "encode/books.h"

namespace annvq {

// Nearest entry (squared Euclidean) of each codebook to x[offsets[m] : offsets[m] + width]; ties to the lower
// index.
void encode_product(const EncoderBooks& books, const int32_t* offsets, const float* x, int64_t n, int64_t dim,
                    uint16_t* codes, int threads);

// Beam search: the `beam` best partial sums are kept after each step, ordered by (score, parent, entry).
// any_order = false adds codebooks in order (residual codes); true lets every step use any codebook that is
// left (Babenko and Lempitsky, CVPR 2014), and drops sums that hold the same entries.
// `keep` codes are written per vector, best first; the best again where fewer sums were kept.
void encode_beam(const EncoderBooks& books, const float* x, int64_t n, int32_t beam, bool any_order,
                 int32_t keep, uint16_t* codes, int threads);

// Local search from given codes: round t re-opens the codebooks schedule[t][0..open), and codes them anew by
// a beam of at most `width` sums, one per lane, given the codes of the others; the vector keeps whichever is
// nearer.
void encode_local_search(const EncoderBooks& books, const float* x, int64_t n, const int32_t* schedule,
                         int32_t rounds, int32_t open, int32_t width, uint16_t* codes, int threads);

}  // namespace annvq
