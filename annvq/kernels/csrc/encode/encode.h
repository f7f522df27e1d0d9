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
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace annvq {

constexpr int kLanes = 16;
constexpr int kMaxAdditiveCodebooks = 64;
constexpr int64_t kStripEntries = 256;  // entries of a codebook whose pairs lie together

// Memory on a large-page boundary where it is large: rows that are read at random would else cost a walk
// through page tables each.
void* large_pages(size_t bytes);
void free_large_pages(void* p);

template <class T>
struct LargePages {
    using value_type = T;
    LargePages() = default;
    template <class U>
    LargePages(const LargePages<U>&) {}
    T* allocate(size_t count) { return static_cast<T*>(large_pages(count * sizeof(T))); }
    void deallocate(T* p, size_t) { free_large_pages(p); }
    template <class U>
    bool operator==(const LargePages<U>&) const {
        return true;
    }
    template <class U>
    bool operator!=(const LargePages<U>&) const {
        return false;
    }
};

using LargeShorts = std::vector<int16_t, LargePages<int16_t>>;
using LargeBytes = std::vector<int8_t, LargePages<int8_t>>;

// A strip of up to four groups of sixteen entries, transposed: values[j][lane] for dimension j.
struct Panel {
    int64_t first;   // padded number of its first entry
    int64_t data;    // where its values start in EncoderBooks::packed
    int32_t groups;  // groups of sixteen lanes
};

// Codebooks made ready for encoding. Entries are numbered codebook after codebook, each codebook padded to a
// multiple of sixteen; the padding has an infinite norm and is never chosen.
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
    std::vector<float, LargePages<float>>
        gram;  // (padded, padded) 2<c_e, c_f>, 0 within a codebook; empty when too large
};

// Entries as given: for product codes, where each codebook sees its own dimensions.
EncoderBooks product_books(const float* entries, const int32_t* sizes, int32_t M, int32_t width);
// Entries centred per codebook (cancellation stays small on data far from the origin), with their Gram matrix
// where it takes at most gram_limit bytes.
EncoderBooks additive_books(const float* entries, const int32_t* sizes, int32_t M, int32_t width,
                            int64_t gram_limit, int threads);

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

// Scores of single entries as 16-bit integers and of pairs of entries as bytes, or 16-bit integers too where
// bytes would be too coarse, for iterated local search: little memory traffic, many lanes, and integer sums
// are the same on every machine. The scale is chosen from the codebooks; what is beyond the range saturates.
struct PairTables {
    int32_t M = 0;
    float scale = 0;             // of scores
    int32_t shift = 0;           // a pair's unit is 2^shift units of scores; 0 with 16-bit pairs
    std::vector<int32_t> sizes;  // (M,) entries
    std::vector<int64_t> first;  // (M + 1,) number of each codebook's first entry, padded to 32 a codebook
    std::vector<int64_t> table;  // (M,) where the pairs with codebook m's entries start
    LargeShorts shorts;          // table m, strip after strip: (first[M], width) 2<c_a, c_k>
    LargeBytes bytes;            // the same in units of 2^shift, two to a 16-bit word (see byte_row)

    // Entries of codebook m's strip from `from` on: all that a strip holds, or 32.
    int64_t strip_width(int m, int64_t from) const {
        return from + kStripEntries <= first[m + 1] - first[m] ? kStripEntries : 32;
    }
    // Where entry a's pairs with a strip start.
    int64_t row(int m, int64_t a, int64_t from, int64_t width) const {
        return table[m] + from * first[M] + a * width;
    }
    // Where the strip that holds codebook m's entry k starts.
    int64_t strip_of(int m, int64_t k) const {
        const int64_t from = k / kStripEntries * kStripEntries;
        return strip_width(m, from) == kStripEntries ? from : k / 32 * 32;
    }
};

// Needs the Gram matrix of the books.
PairTables pair_tables(const EncoderBooks& books);

struct NormModel;  // norm_search.h

struct IteratedPlan {
    int32_t iterations, perturbed, sweeps;
    uint64_t seed;
    float heat;
};

// Iterated local search (LSQ, Martinez et al., ECCV 2016) from given codes, in the 16-bit scores: each
// iteration replaces `perturbed` codes at random, runs `sweeps` sweeps of ICM and goes on from what is
// better, or worse by less than a random share of `heat` times the error; heat falls to nothing. A vector
// keeps its given codes unless the best ones found are nearer in float32.
void encode_iterated(const EncoderBooks& books, const PairTables& tables, const float* x, int64_t n,
                     const IteratedPlan& plan, uint16_t* codes, int threads);

// What a SIMD level implements: the same source compiled once per instruction set.
struct EncodeKernels {
    // out[r][e - panels[from].first] = <x_r, c_e> (or ||x_r - c_e||^2) over the panels [from, to).
    void (*products)(const EncoderBooks&, int64_t from, int64_t to, const float* x, int64_t stride,
                     int64_t rows, bool l2, float* out, int64_t out_stride);
    int32_t (*argmin)(const float* row, int64_t padded);
    int64_t (*beam_scratch)(const EncoderBooks&, int64_t vectors, int32_t beam, bool any_order);  // in floats
    void (*beam)(const EncoderBooks&, const float* x, int64_t vectors, int32_t beam, bool any_order,
                 int32_t keep, uint16_t* codes, float* scratch);
    int64_t (*local_search_scratch)(const EncoderBooks&, int64_t vectors, int32_t open, int32_t width);
    void (*local_search)(const EncoderBooks&, const float* x, int64_t vectors, const int32_t* schedule,
                         int32_t rounds, int32_t open, int32_t width, uint16_t* codes, float* scratch);
    int64_t (*norm_search_scratch)(const EncoderBooks&, int64_t vectors);
    void (*norm_search)(const EncoderBooks&, const NormModel&, const float* x, const float* centres,
                        int64_t vectors, const int32_t* pairs, int32_t rounds, uint16_t* codes,
                        float* scratch);
    // (norms - 2 * products) * scale, rounded to 16 bits; count is a multiple of sixteen.
    void (*products_to_shorts)(const float* products, const float* norms, int64_t count, float scale,
                               int16_t* out);
    // unary int16, strip after strip: (vectors, width); scratch: vectors * (36 + 8 * M) bytes on an 8-byte
    // boundary.
    // `energy` (vectors,): squared lengths of the shifted vectors, in units of scores.
    void (*iterated)(const EncoderBooks&, const PairTables&, const int16_t* unary, const int32_t* energy,
                     int64_t vectors, const IteratedPlan&, uint16_t* codes, unsigned char* scratch);
};
extern const EncodeKernels kEncodeGeneric, kEncodeAvx2, kEncodeAvx512;
const EncodeKernels& encode_kernels();  // those of the SIMD level in use

}  // namespace annvq
