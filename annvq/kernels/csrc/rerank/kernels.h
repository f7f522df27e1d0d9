// What an instruction set gives re-ranking.
#pragma once
#include <cstdint>

namespace annvq {

enum class RowType { f32, f16, bf16, u8, i8 };
enum class RowMetric { l2, ip, cosine, unit };  // unit: 1 - <q, x>; cosine: 1 - <q, x> / |x|

constexpr int64_t row_item(RowType t) {
    return t == RowType::f32 ? 4 : t == RowType::f16 || t == RowType::bf16 ? 2 : 1;
}

// A product code: codebooks of 256 entries of 8 or 16 dimensions that follow one another.
struct ProductPart {
    const float* entries;  // (d / width, 256, width)
    int64_t width;
    const uint8_t* codes;  // (d / width,)
};

struct RerankKernels {
    // q: padded with zeros to a multiple of 16. Not finite where sums overflow, NaN where squares vanish.
    float (*distance)(const float* q, const void* row, int64_t dim, RowType type, RowMetric metric);
    void (*add)(float* sum, const float* entry, int64_t width);
    // Entries of `width` floats, each added from its own start on, in this order.
    void (*add_all)(float* sum, const float* const* entries, const int32_t* starts, int32_t count,
                    int64_t width, int64_t dim);
    // `distance` to the sum of one or two product codes' vectors; dim is a multiple of 16.
    float (*product)(const float* q, const ProductPart* parts, int count, int64_t dim, RowMetric metric);
};
const RerankKernels& rerank_kernels();  // of the SIMD level in use

}  // namespace annvq
