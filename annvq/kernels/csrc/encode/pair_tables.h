// Scores of pairs of entries in small integers, for iterated local search.
#pragma once
#include <cstdint>
#include <vector>

#include "common/large_pages.h"
#include "encode/books.h"
#include "encode/kernels.h"

namespace annvq {

// Scores of single entries as 16-bit integers and of pairs of entries as bytes, or 16-bit integers too where
// bytes would be too coarse: little memory traffic, many lanes, and integer sums are the same on every
// machine. The scale is chosen from the codebooks; what is beyond the range saturates.
struct PairTables {
    int32_t M = 0;
    float scale = 0;              // of scores
    int32_t shift = 0;            // a pair's unit is 2^shift units of scores; 0 with 16-bit pairs
    std::vector<int32_t> sizes;   // (M,) entries
    std::vector<int64_t> first;   // (M + 1,) number of each codebook's first entry, padded to 32 a codebook
    std::vector<int64_t> table;   // (M,) where the pairs with codebook m's entries start
    LargeVector<int16_t> shorts;  // table m, strip after strip: (first[M], width) 2<c_a, c_k>
    LargeVector<int8_t> bytes;    // the same in units of 2^shift, two to a 16-bit word (see byte_row)

    PairsView view() const;
};

// Needs the Gram matrix of the books.
PairTables pair_tables(const EncoderBooks& books);

}  // namespace annvq
