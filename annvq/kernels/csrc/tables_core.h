// Tables of one codebook for a few queries. Included by one translation unit per instruction set.
#pragma once
#include "encode_lanes.h"
#include "tables.h"

namespace annvq::ANNVQ_ISA {

// nq queries by `groups` lane groups of entries, all sums in registers.
template <bool squared, int nq, int groups>
inline void tile(const TransposedBook& book, int64_t first, const float* x, int64_t x_stride, float scale,
                 float* out, int64_t out_stride) {
    Lanes sum[nq][groups];
    for (int q = 0; q < nq; q++)
        for (int g = 0; g < groups; g++) sum[q][g] = splat(0.f);
    const float* c = book.values + first;
    for (int64_t j = 0; j < book.width; j++, c += book.padded) {
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
            const Lanes value = squared ? sum[q][g] : splat(scale) * sum[q][g];
            float* to = out + q * out_stride + first + kTableLanes * g;
            if (first + kTableLanes * (g + 1) <= book.size) {
                store(to, value);
            } else {
                float rest[kTableLanes];
                store(rest, value);
                for (int64_t k = 0; first + kTableLanes * g + k < book.size; k++) to[k] = rest[k];
            }
        }
}

template <bool squared, int nq>
void entries(const TransposedBook& book, const float* x, int64_t x_stride, float scale, float* out,
             int64_t out_stride) {
    constexpr int groups = 8 / nq;
    int64_t k = 0;
    for (; k + groups * kTableLanes <= book.padded; k += groups * kTableLanes)
        tile<squared, nq, groups>(book, k, x, x_stride, scale, out, out_stride);
    for (; k < book.padded; k += kTableLanes)
        tile<squared, nq, 1>(book, k, x, x_stride, scale, out, out_stride);
}

template <bool squared>
void queries(const TransposedBook& book, const float* x, int64_t x_stride, int64_t nq, float scale,
             float* out, int64_t out_stride) {
    int64_t q = 0;
    for (; q + 4 <= nq; q += 4)
        entries<squared, 4>(book, x + q * x_stride, x_stride, scale, out + q * out_stride, out_stride);
    for (; q < nq; q++)
        entries<squared, 1>(book, x + q * x_stride, x_stride, scale, out + q * out_stride, out_stride);
}

inline void rows(const TransposedBook& book, const float* x, int64_t x_stride, int64_t nq, bool squared,
                 float scale, float* out, int64_t out_stride) {
    if (squared)
        queries<true>(book, x, x_stride, nq, scale, out, out_stride);
    else
        queries<false>(book, x, x_stride, nq, scale, out, out_stride);
}

}  // namespace annvq::ANNVQ_ISA
