// Distances of re-ranking, compiled once per instruction set (ANNVQ_ISA names the namespace).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "rerank.h"

namespace annvq::ANNVQ_ISA {

typedef float V16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));

template <RowType T>
struct Row;

template <>
struct Row<RowType::f32> {
    using Item = float;
    static void load(const float* p, V16* out) { std::memcpy(out, p, sizeof(V16)); }
};

template <class Integer>
struct IntegerRow {
    using Item = Integer;
    static void load(const Integer* p, V16* out) {
        float v[16];
        for (int i = 0; i < 16; i++) v[i] = static_cast<float>(p[i]);
        std::memcpy(out, v, sizeof v);
    }
};
template <>
struct Row<RowType::u8> : IntegerRow<uint8_t> {};
template <>
struct Row<RowType::i8> : IntegerRow<int8_t> {};

template <>
struct Row<RowType::f16> {
    using Item = uint16_t;
    static void load(const uint16_t* p, V16* out) {
        uint32_t bits[16];
        for (int i = 0; i < 16; i++) bits[i] = p[i];
        U16 h;
        std::memcpy(&h, bits, sizeof h);
        // Exponent and mantissa moved into place are the number times 2^-112, exactly, subnormals included.
        const U16 magnitude = (h & 0x7fffu) << 13, sign = (h & 0x8000u) << 16;
        V16 v;
        std::memcpy(&v, &magnitude, sizeof v);
        v = v * 0x1p112f;
        U16 scaled;
        std::memcpy(&scaled, &v, sizeof scaled);
        scaled |= sign;
        std::memcpy(out, &scaled, sizeof scaled);
    }
};

inline float total(const V16& sums) {
    float s[16];
    std::memcpy(s, &sums, sizeof s);
    for (int half = 8; half >= 1; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

template <RowType T, RowMetric M>
float distance_to(const float* q, const void* row, int64_t dim) {
    using Item = typename Row<T>::Item;
    const Item* x = static_cast<const Item*>(row);
    V16 sum = {}, squares = {};
    auto step = [&](int64_t j, const Item* at) {
        V16 a, b;
        std::memcpy(&a, q + j, sizeof a);
        Row<T>::load(at, &b);
        if constexpr (M == RowMetric::l2) {
            const V16 v = a - b;
            sum += v * v;
        } else {
            sum += a * b;
            if constexpr (M == RowMetric::cosine) squares += b * b;
        }
    };
    int64_t j = 0;
    for (; j + 16 <= dim; j += 16) step(j, x + j);
    if (j < dim) {
        Item tail[16] = {};
        std::memcpy(tail, x + j, (dim - j) * sizeof(Item));
        step(j, tail);
    }
    if constexpr (M == RowMetric::l2) return total(sum);
    if constexpr (M == RowMetric::ip) return -total(sum);
    if constexpr (M == RowMetric::unit) return 1.f - total(sum);
    return 1.f - total(sum) / std::sqrt(total(squares));
}

template <RowType T>
float distance_of(const float* q, const void* row, int64_t dim, RowMetric metric) {
    switch (metric) {
        case RowMetric::l2:
            return distance_to<T, RowMetric::l2>(q, row, dim);
        case RowMetric::ip:
            return distance_to<T, RowMetric::ip>(q, row, dim);
        case RowMetric::unit:
            return distance_to<T, RowMetric::unit>(q, row, dim);
        default:
            return distance_to<T, RowMetric::cosine>(q, row, dim);
    }
}

float distance(const float* q, const void* row, int64_t dim, RowType type, RowMetric metric) {
    switch (type) {
        case RowType::f32:
            return distance_of<RowType::f32>(q, row, dim, metric);
        case RowType::f16:
            return distance_of<RowType::f16>(q, row, dim, metric);
        case RowType::u8:
            return distance_of<RowType::u8>(q, row, dim, metric);
        default:
            return distance_of<RowType::i8>(q, row, dim, metric);
    }
}

void add(float* sum, const float* entry, int64_t width) {
    for (int64_t j = 0; j < width; j++) sum[j] += entry[j];
}

constexpr RerankKernels kKernels{distance, add};

}  // namespace annvq::ANNVQ_ISA
