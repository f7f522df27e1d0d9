// Codebooks made ready for encoding.
#pragma once
#include <cstdint>
#include <vector>

#include "common/large_pages.h"
#include "encode/kernels.h"

namespace annvq {

// Entries are numbered codebook after codebook, each codebook padded to a multiple of sixteen; the padding
// has an infinite norm and is never chosen.
struct EncoderBooks {
    int32_t M, width;
    int64_t padded;                   // padded number of entries in all
    std::vector<int32_t> sizes;       // (M,) entries
    std::vector<int64_t> first;       // (M + 1,) padded number of each codebook's first entry
    std::vector<int64_t> panel_from;  // (M + 1,) each codebook's first panel
    std::vector<Panel> panels;
    std::vector<float> packed;   // panels' values
    std::vector<float> entries;  // (padded, width), row-major; centred for the additive family
    std::vector<float> norms;    // (padded,) squared norms, +inf in the padding
    std::vector<float> shift;    // (width,) sum of the codebooks' centres, taken off vectors before encoding
    LargeVector<float> gram;     // (padded, padded) 2<c_e, c_f>, 0 within a codebook; empty when too large

    BooksView view() const;
};

// Entries as given: for product codes, where each codebook sees its own dimensions.
EncoderBooks product_books(const float* entries, const int32_t* sizes, int32_t M, int32_t width);
// Entries centred per codebook (cancellation stays small on data far from the origin), with their Gram matrix
// where it takes at most gram_limit bytes.
EncoderBooks additive_books(const float* entries, const int32_t* sizes, int32_t M, int32_t width,
                            int64_t gram_limit, int threads);

}  // namespace annvq
