// Iterated local search: additive codes improved by perturbing and repairing them.
#pragma once
#include <cstdint>

#include "encode/books.h"
#include "encode/kernels.h"
#include "encode/pair_tables.h"

namespace annvq {

// Iterated local search (LSQ, Martinez et al., ECCV 2016) from given codes, in the 16-bit scores: each
// iteration replaces `perturbed` codes at random, runs `sweeps` sweeps of ICM and goes on from what is
// better, or worse by less than a random share of `heat` times the error; heat falls to nothing. A vector
// keeps its given codes unless the best ones found are nearer in float32.
void encode_iterated(const EncoderBooks& books, const PairTables& tables, const float* x, int64_t n,
                     const IteratedPlan& plan, uint16_t* codes, int threads);

}  // namespace annvq
