// What an instruction set gives the encoders, and what its code sees of codebooks: pointers alone, as nothing
// of the standard library may be compiled for one instruction set and linked for all (simd/pick.h).
#pragma once
#include <cstdint>

namespace annvq {

constexpr int kLanes = 16;
constexpr int kMaxAdditiveCodebooks = 1024;
constexpr int kMaxIteratedCodebooks = 64;  // of iterated search, whose scores have 16 bits
constexpr int32_t kMostCandidates = 64;    // of a codebook that are put through a network
constexpr int64_t kStripEntries = 256;     // entries of a codebook whose pairs lie together

// A strip of up to four groups of sixteen entries, transposed: values[j][lane] for dimension j.
struct Panel {
    int64_t first;   // padded number of its first entry
    int64_t data;    // where its values start in BooksView::packed
    int32_t groups;  // groups of sixteen lanes
};

// Codebooks (encode/books.h).
struct BooksView {
    int32_t M, width;
    int64_t padded;
    const int64_t *first, *panel_from;
    const Panel* panels;
    const float *packed, *entries, *norms, *shift;
    const float* gram;  // nullptr: too large to keep
};

// Scores of pairs of entries (encode/pair_tables.h); of shorts and bytes one is nullptr.
struct PairsView {
    int32_t M;
    float scale;
    int32_t shift;
    const int32_t* sizes;
    const int64_t *first, *table;
    const int16_t* shorts;
    const int8_t* bytes;
};

// Entries of codebook m's strip from `from` on: all that a strip holds, or 32.
static inline int64_t strip_width(const PairsView& t, int m, int64_t from) {
    return from + kStripEntries <= t.first[m + 1] - t.first[m] ? kStripEntries : 32;
}
// Where entry a's pairs with a strip start.
static inline int64_t row_of(const PairsView& t, int m, int64_t a, int64_t from, int64_t width) {
    return t.table[m] + from * t.first[t.M] + a * width;
}
// Where the strip that holds codebook m's entry k starts.
static inline int64_t strip_of(const PairsView& t, int m, int64_t k) {
    const int64_t from = k / kStripEntries * kStripEntries;
    return strip_width(t, m, from) == kStripEntries ? from : k / 32 * 32;
}

// How a norm is kept (encode/norm_search.h).
struct NormView {
    double constant;
    const float* weights;
    const float *levels, *middles;  // nullptr: no levels
    int64_t middle_count;
    float weight, error_share;
};

struct IteratedPlan {
    int32_t iterations, perturbed, sweeps;
    uint64_t seed;
    float heat;
};

// A network behind sums of entries (encode/network.h). Rows of `entries` have `width` columns, those of
// `table` and `bias` `hidden`: multiples of sixteen, with zeros in the padding.
struct NetworkView {
    BooksView plain, outward, inward, outward_back, inward_back;  // V and the transposes, for gradients
    const int32_t* sizes;
    const float *entries, *table, *bias;
    int32_t dim, width, hidden;
};

struct EncodeKernels {
    // out[r][e - panels[from].first] = <x_r, c_e> (or ||x_r - c_e||^2) over the panels [from, to).
    void (*products)(const BooksView&, int64_t from, int64_t to, const float* x, int64_t stride, int64_t rows,
                     bool l2, float* out, int64_t out_stride);
    int32_t (*argmin)(const float* row, int64_t padded);
    int64_t (*beam_scratch)(const BooksView&, int64_t vectors, int32_t beam, bool any_order);  // in floats
    void (*beam)(const BooksView&, const float* x, int64_t vectors, int32_t beam, bool any_order,
                 int32_t keep, uint16_t* codes, float* scratch);
    int64_t (*local_search_scratch)(const BooksView&, int64_t vectors, int32_t open, int32_t width);
    void (*local_search)(const BooksView&, const float* x, int64_t vectors, const int32_t* schedule,
                         int32_t rounds, int32_t open, int32_t width, uint16_t* codes, float* scratch);
    int64_t (*norm_search_scratch)(const BooksView&, int64_t vectors);
    void (*norm_search)(const BooksView&, const NormView&, const float* x, const float* centres,
                        const float* rest, int64_t vectors, const int32_t* pairs, int32_t rounds,
                        uint16_t* codes, float* scratch);
    // (norms - 2 * products) * scale, rounded to 16 bits; count is a multiple of sixteen.
    void (*products_to_shorts)(const float* products, const float* norms, int64_t count, float scale,
                               int16_t* out);
    // unary int16, strip after strip: (vectors, width); scratch: vectors * (36 + 8 * M) bytes on an 8-byte
    // boundary.
    // `energy` (vectors,): squared lengths of the shifted vectors, in units of scores.
    void (*iterated)(const BooksView&, const PairsView&, const int16_t* unary, const int32_t* energy,
                     int64_t vectors, const IteratedPlan&, uint16_t* codes, unsigned char* scratch);
    int64_t (*network_scratch)(const NetworkView&, int64_t vectors, int32_t candidates);  // 0: of decoding
    void (*network_hidden)(const NetworkView&, const uint16_t* codes, int64_t vectors, float* out);
    void (*network_decode)(const NetworkView&, const uint16_t* codes, int64_t vectors, const float* weights,
                           float* out, float* told, float* scratch);
    void (*network_sweep)(const NetworkView&, const float* x, int64_t vectors, int32_t candidates,
                          int32_t sweeps, uint16_t* codes, float* scratch);
    void (*network_aim)(const NetworkView&, const float* x, int64_t vectors, const uint16_t* codes,
                        float reach, float* sums, float* errors, float* scratch);
};
const EncodeKernels& encode_kernels();  // of the SIMD level in use

}  // namespace annvq
