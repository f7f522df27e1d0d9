// Products of vectors with entries, the least of a row, and what the other encoders' loops share.
#pragma once
#include <cfloat>
#include <cstdint>

#include "encode/kernels.h"
#include "simd/lanes.h"

namespace annvq {
namespace {

template <int R, int G, bool L2>
void tile(const float* x, int64_t stride, const float* values, int64_t values_stride, int width, float* out,
          int64_t out_stride) {
    Lanes sum[R][G];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) sum[r][g] = splat(0.f);
    for (int j = 0; j < width; j++, values += values_stride) {
        Lanes c[G];
        for (int g = 0; g < G; g++) c[g] = load(values + g * kLanes);
        for (int r = 0; r < R; r++) {
            const Lanes q = splat(x[r * stride + j]);
            for (int g = 0; g < G; g++) {
                const Lanes v = L2 ? q - c[g] : q;
                sum[r][g] = sum[r][g] + v * (L2 ? v : c[g]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) store(out + r * out_stride + g * kLanes, sum[r][g]);
}

template <int G, bool L2>
void tile_rows(const float* x, int64_t stride, int64_t rows, const float* values, int64_t values_stride,
               int width, float* out, int64_t out_stride) {
    int64_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows)
        tile<kTileRows, G, L2>(x + r * stride, stride, values, values_stride, width, out + r * out_stride,
                               out_stride);
    for (; r < rows; r++)
        tile<1, G, L2>(x + r * stride, stride, values, values_stride, width, out + r * out_stride,
                       out_stride);
}

template <bool L2>
void panel_products(const BooksView& books, int64_t from, int64_t to, const float* x, int64_t stride,
                    int64_t rows, float* out, int64_t out_stride) {
    const int64_t first = books.panels[from].first;
    for (int64_t p = from; p < to; p++) {
        const Panel& panel = books.panels[p];
        const float* values = &books.packed[panel.data];
        float* o = out + (panel.first - first);
        const int64_t values_stride = panel.groups * kLanes;
        int g = 0;
        for (; g + kTileGroups <= panel.groups; g += kTileGroups)
            tile_rows<kTileGroups, L2>(x, stride, rows, values + g * kLanes, values_stride, books.width,
                                       o + g * kLanes, out_stride);
        for (; g < panel.groups; g++)
            tile_rows<1, L2>(x, stride, rows, values + g * kLanes, values_stride, books.width, o + g * kLanes,
                             out_stride);
    }
}

void products(const BooksView& books, int64_t from, int64_t to, const float* x, int64_t stride, int64_t rows,
              bool l2, float* out, int64_t out_stride) {
    if (l2)
        panel_products<true>(books, from, to, x, stride, rows, out, out_stride);
    else
        panel_products<false>(books, from, to, x, stride, rows, out, out_stride);
}

// The best value of each lane and where it was seen; the earliest wins ties within a lane.
struct LaneBest {
    Lanes value = splat(FLT_MAX);
    Ints where = splat(int32_t{-1});

    void offer(Lanes v, int32_t index) {
        const Mask better = v < value;
        value = select(better, v, value);
        where = select(better, splat(index), where);
    }
};

int32_t argmin(const float* row, int64_t padded) {
    LaneBest best;
    for (int64_t g = 0; g * kLanes < padded; g++) best.offer(load(row + g * kLanes), static_cast<int32_t>(g));
    float value[kLanes];
    int32_t where[kLanes];
    store(value, best.value);
    store(where, best.where);
    float lowest = FLT_MAX;
    int32_t result = 0;
    for (int l = 0; l < kLanes; l++) {
        if (where[l] < 0) continue;
        const int32_t k = where[l] * kLanes + l;
        if (value[l] < lowest || (value[l] == lowest && k < result)) {
            lowest = value[l];
            result = k;
        }
    }
    return result;
}

// Hands out pieces of one block of memory; with no block it only counts.
struct Bump {
    float* base;
    int64_t used = 0;  // in floats

    template <class T>
    T* take(int64_t count) {
        float* p = base ? base + used : nullptr;
        used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * kLanes;
        return reinterpret_cast<T*>(p);
    }
};

inline int64_t codebook_padded(const BooksView& b, int m) { return b.first[m + 1] - b.first[m]; }

inline int64_t widest(const BooksView& b) {
    int64_t most = 0;
    for (int m = 0; m < b.M; m++) most = codebook_padded(b, m) > most ? codebook_padded(b, m) : most;
    return most;
}

// u = ||c||^2 - 2<x, c> in place of <x, c>.
inline void products_to_scores(const float* norms, int64_t count, float* row) {
    for (int64_t e = 0; e < count; e += kLanes) {
        const Lanes ip = load(row + e);
        store(row + e, load(norms + e) - (ip + ip));
    }
}

// The same times `scale`, as 16-bit integers.
inline void products_to_shorts(const float* products, const float* norms, int64_t count, float scale,
                               int16_t* out) {
    const Lanes factor = splat(scale);
    for (int64_t e = 0; e < count; e += kLanes) {
        const Lanes ip = load(products + e);
        store_rounded(out + e, (load(norms + e) - (ip + ip)) * factor);
    }
}

}  // namespace
}  // namespace annvq
