// Tables of one codebook for a few queries, compiled once per instruction set (simd/pick.h).
#pragma once
#include <type_traits>

#include "simd/lanes.h"
#include "tables/kernels.h"

namespace annvq {
namespace {

struct Output {
    float scale;
    const float* offsets;  // by entry, or nullptr
    float* out;
    int64_t stride;  // between queries
};

// nq queries by one panel of `groups` lane groups of entries, all sums in registers.
template <bool squared, int nq, int groups>
inline void tile(const TransposedBook& book, int64_t first, const float* x, int64_t x_stride,
                 const Output& o) {
    Lanes sum[nq][groups];
    for (int q = 0; q < nq; q++)
        for (int g = 0; g < groups; g++) sum[q][g] = splat(0.f);
    const float* c = book.values + first * book.width;
    for (int64_t j = 0; j < book.width; j++, c += kTableLanes * groups) {
        Lanes entry[groups];
        for (int g = 0; g < groups; g++) entry[g] = load(c + kTableLanes * g);
        for (int q = 0; q < nq; q++) {
            const Lanes own = splat(x[q * x_stride + j]);
            for (int g = 0; g < groups; g++) {
                const Lanes v = squared ? own - entry[g] : own;
                sum[q][g] = sum[q][g] + v * (squared ? v : entry[g]);
            }
        }
    }
    for (int q = 0; q < nq; q++)
        for (int g = 0; g < groups; g++) {
            const int64_t k = first + kTableLanes * g;
            const Lanes value = squared ? sum[q][g] : splat(o.scale) * sum[q][g];
            float* to = o.out + q * o.stride + k;
            if (k + kTableLanes <= book.size) {
                store(to, o.offsets ? value + load(o.offsets + k) : value);
            } else {
                float rest[kTableLanes];
                store(rest, value);
                for (int64_t i = 0; k + i < book.size; i++)
                    to[i] = o.offsets ? rest[i] + o.offsets[k + i] : rest[i];
            }
        }
}

template <bool squared, int groups>
inline void panel(const TransposedBook& book, int64_t first, const float* x, int64_t x_stride, int64_t nq,
                  Output o) {
    int64_t q = 0;
    const auto some = [&](auto count) {
        constexpr int n = decltype(count)::value;
        for (; q + n <= nq; q += n, o.out += n * o.stride)
            tile<squared, n, groups>(book, first, x + q * x_stride, x_stride, o);
    };
    // Products, of longer entries as a rule, gain from more queries where there are registers; squares do
    // not.
    some(std::integral_constant<int, squared ? kTileSquareQueries : kTileQueries>{});
    some(std::integral_constant<int, kTileSquareQueries>{});
    some(std::integral_constant<int, 1>{});
}

// A panel stays in the first cache while all queries use it.
template <bool squared>
void panels(const TransposedBook& book, const float* x, int64_t x_stride, int64_t nq, const Output& o) {
    for (int64_t k = 0; k < book.padded; k += kTablePanel)
        if (book.padded - k >= kTablePanel)
            panel<squared, kTablePanel / kTableLanes>(book, k, x, x_stride, nq, o);
        else
            panel<squared, 1>(book, k, x, x_stride, nq, o);
}

inline void rows(const TransposedBook& book, const float* x, int64_t x_stride, int64_t nq, bool squared,
                 float scale, const float* offsets, float* out, int64_t out_stride) {
    const Output o{scale, offsets, out, out_stride};
    if (squared)
        panels<true>(book, x, x_stride, nq, o);
    else
        panels<false>(book, x, x_stride, nq, o);
}

}  // namespace
}  // namespace annvq
