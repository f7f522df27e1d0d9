// Conditional codes: a network behind the sum of a code's entries, x^ = s + U relu(V s + b).
//
// V s is a sum of rows of a table, what each entry adds to the hidden units; so changing one entry of a code
// costs a row of the table and a product with U. Sums have a fixed order: results do not depend on the SIMD
// level, the batch or the threads.
#pragma once
#include <cstdint>
#include <vector>

#include "common/large_pages.h"
#include "encode/books.h"
#include "encode/kernels.h"

namespace annvq {

struct Network {
    EncoderBooks plain;          // entries whose sums come near without the network
    EncoderBooks outward;        // U's rows, one codebook of `hidden` columns
    EncoderBooks inward;         // V's rows
    EncoderBooks outward_back;   // U's columns, for gradients
    EncoderBooks inward_back;    // V's columns
    int32_t dim, hidden;         // as given; rows are padded to multiples of sixteen
    std::vector<float> entries;  // (plain.padded, padded dim)
    std::vector<float> bias;     // (padded hidden,)
    LargeVector<float> table;    // (plain.padded, padded hidden): what entries add to the hidden units

    NetworkView view() const;
};

// entries and plain (sum(sizes), dim), inward V (hidden, dim), bias (hidden,), outward U (dim, hidden).
Network make_network(const float* entries, const float* plain, const int32_t* sizes, int32_t M, int32_t dim,
                     const float* inward, const float* bias, const float* outward, int32_t hidden,
                     int threads);

// Vectors (n, dim) of codes; told (n,), unless nullptr: sums of their hidden units by `weights` (hidden,).
void network_decode(const Network& network, const uint16_t* codes, int64_t n, const float* weights,
                    float* out, float* told, int threads);
// Hidden units (n, hidden) of codes.
void network_hidden(const Network& network, const uint16_t* codes, int64_t n, float* out, int threads);
// Chooses codes anew, codebook after codebook and `sweeps` times: of the `candidates` entries nearest without
// the network (at most kMostCandidates, the present one left out; of equal ones the first) the one with which
// the network comes nearest to x, if that is nearer than the present one.
void network_sweep(const Network& network, const float* x, int64_t n, int32_t candidates, int32_t sweeps,
                   uint16_t* codes, int threads);
// What sums (n, dim) should be for the network to come nearer to x, and the squared errors (n,) of the codes
// as they are. With J the network's derivative at the sum s, r = x - x^ and g = (1 + J)' r, that is s + g
// |g|^2 / (reach |(1 + J) g|^2): with reach 1 where the error along g is least, as far as the network is
// linear.
void network_aim(const Network& network, const float* x, int64_t n, const uint16_t* codes, float reach,
                 float* sums, float* errors, int threads);

}  // namespace annvq
