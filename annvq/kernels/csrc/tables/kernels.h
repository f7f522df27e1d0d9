// What an instruction set gives the tables.
#pragma once
#include <cstdint>

namespace annvq {

constexpr int64_t kTableLanes = 16;
constexpr int64_t kTablePanel = 32;

// One codebook, transposed so that neighbouring entries are neighbouring lanes.
struct TransposedBook {
    const float* values;  // panels of 32 entries, the last may have 16: (width, 32) each
    int64_t size, padded, width;
};

struct TableKernels {
    // out[q * out_stride + k] for k < size: sum over j of (x[q * x_stride + j] - c[k][j])^2, or scale * sum
    // of x * c; plus offsets[k], unless nullptr.
    void (*rows)(const TransposedBook& book, const float* x, int64_t x_stride, int64_t nq, bool squared,
                 float scale, const float* offsets, float* out, int64_t out_stride);
};
const TableKernels& table_kernels();  // of the SIMD level in use

}  // namespace annvq
