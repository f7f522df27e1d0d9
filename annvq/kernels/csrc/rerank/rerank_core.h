// Distances of re-ranking, compiled once per instruction set (simd/pick.h).
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "rerank/kernels.h"

#if defined(ANNVQ_NEON)
#include "simd/lanes_neon.h"
#elif defined(__AVX2__)
#include <immintrin.h>
#endif

namespace annvq {
namespace {

#if defined(ANNVQ_NEON)
// GCC keeps vectors that are wider than a register in memory.
using V16 = Lanes;
inline V16& operator+=(V16& a, const V16& b) { return a = a + b; }
inline void read(const float* p, V16* out) { *out = load(p); }
#else
typedef float V16 __attribute__((vector_size(64)));
inline void read(const float* p, V16* out) { std::memcpy(out, p, sizeof *out); }
#endif
typedef float V8 __attribute__((vector_size(32)));
typedef float V4 __attribute__((vector_size(16)));
typedef uint32_t U16 __attribute__((vector_size(64)));

template <RowType T>
struct Row;

template <>
struct Row<RowType::f32> {
    using Item = float;
    static void load(const float* p, V16* out) { read(p, out); }
};

// Sixteen integers as floats.
template <class Integer>
V16 widened(const Integer* p) {
    V16 out;
#if defined(__AVX512F__)
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m512 v =
        _mm512_cvtepi32_ps(Integer(-1) < 0 ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
    std::memcpy(&out, &v, sizeof v);
#elif defined(__AVX2__)
    for (int half = 0; half < 2; half++) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * half));
        const __m256 v =
            _mm256_cvtepi32_ps(Integer(-1) < 0 ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
        std::memcpy(reinterpret_cast<char*>(&out) + half * sizeof v, &v, sizeof v);
    }
#elif defined(ANNVQ_NEON)
    const uint8x16_t bytes = vld1q_u8(reinterpret_cast<const uint8_t*>(p));
    if (Integer(-1) < 0) {
        const int8x16_t own = vreinterpretq_s8_u8(bytes);
        const int16x8_t low = vmovl_s8(vget_low_s8(own)), high = vmovl_high_s8(own);
        out.v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), out.v[1] = vcvtq_f32_s32(vmovl_high_s16(low));
        out.v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
        out.v[3] = vcvtq_f32_s32(vmovl_high_s16(high));
    } else {
        const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
        out.v[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), out.v[1] = vcvtq_f32_u32(vmovl_high_u16(low));
        out.v[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
        out.v[3] = vcvtq_f32_u32(vmovl_high_u16(high));
    }
#else
    float v[16];
    for (int i = 0; i < 16; i++) v[i] = static_cast<float>(p[i]);
    std::memcpy(&out, v, sizeof v);
#endif
    return out;
}
template <>
struct Row<RowType::u8> {
    using Item = uint8_t;
    static void load(const uint8_t* p, V16* out) { *out = widened(p); }
};
template <>
struct Row<RowType::i8> {
    using Item = int8_t;
    static void load(const int8_t* p, V16* out) { *out = widened(p); }
};

template <>
struct Row<RowType::f16> {
    using Item = uint16_t;
    static void load(const uint16_t* p, V16* out) {
#if defined(__AVX512F__)
        const __m512 v = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        std::memcpy(out, &v, sizeof v);
#elif defined(ANNVQ_NEON)
        for (int i = 0; i < 4; i++) out->v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
#else
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
#endif
    }
};

template <>
struct Row<RowType::bf16> {
    using Item = uint16_t;
    static void load(const uint16_t* p, V16* out) {
#if defined(ANNVQ_NEON)
        for (int i = 0; i < 4; i++) out->v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
#else
        typedef uint16_t H16 __attribute__((vector_size(32)));
        H16 halves;
        std::memcpy(&halves, p, sizeof halves);
        const U16 bits = __builtin_convertvector(halves, U16) << 16;  // the first half of a float
        std::memcpy(out, &bits, sizeof bits);
#endif
    }
};

inline float total(const V16& sums) {
#if defined(ANNVQ_NEON)
    const float32x4_t c = vaddq_f32(vaddq_f32(sums.v[0], sums.v[2]), vaddq_f32(sums.v[1], sums.v[3]));
    const float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
#else
    V8 a, b;
    std::memcpy(&a, &sums, sizeof a);
    std::memcpy(&b, reinterpret_cast<const char*>(&sums) + sizeof a, sizeof b);
    a += b;
    V4 c, d;
    std::memcpy(&c, &a, sizeof c);
    std::memcpy(&d, reinterpret_cast<const char*>(&a) + sizeof c, sizeof d);
    c += d;
    return (c[0] + c[2]) + (c[1] + c[3]);
#endif
}

constexpr float kLeastSquares = 0x1p-100f, kMostSquares = 0x1p127f;

// What a distance adds up, sixteen dimensions at a time.
template <RowMetric M>
struct Terms {
    V16 sum = {}, squares = {};

    void add(const float* q, const V16& x) {
        V16 a;
        read(q, &a);
        if constexpr (M == RowMetric::l2) {
            const V16 v = a - x;
            sum += v * v;
        } else {
            sum += a * x;
            if constexpr (M == RowMetric::cosine) squares += x * x;
        }
    }
    float distance() const {
        if constexpr (M == RowMetric::l2) return total(sum);
        if constexpr (M == RowMetric::ip) return -total(sum);
        if constexpr (M == RowMetric::unit) return 1.f - total(sum);
        const float length = total(squares);
        // Squares that vanish or overflow tell no length; the caller computes in double then.
        const bool known = length >= kLeastSquares && length <= kMostSquares;
        return known ? 1.f - total(sum) / __builtin_sqrtf(length) : __builtin_nanf("");
    }
};

template <RowType T, RowMetric M>
float distance_to(const float* q, const void* row, int64_t dim) {
    using Item = typename Row<T>::Item;
    const Item* x = static_cast<const Item*>(row);
    Terms<M> terms;
    V16 b;
    int64_t j = 0;
    for (; j + 16 <= dim; j += 16) {
        Row<T>::load(x + j, &b);
        terms.add(q + j, b);
    }
    if (j < dim) {
        Item tail[16] = {};
        std::memcpy(tail, x + j, (dim - j) * sizeof(Item));
        Row<T>::load(tail, &b);
        terms.add(q + j, b);
    }
    return terms.distance();
}

// of(std::integral_constant<RowMetric, metric>): the loop for each metric is its own.
template <class Of>
float by_metric(RowMetric metric, Of&& of) {
    switch (metric) {
        case RowMetric::l2:
            return of(std::integral_constant<RowMetric, RowMetric::l2>{});
        case RowMetric::ip:
            return of(std::integral_constant<RowMetric, RowMetric::ip>{});
        case RowMetric::unit:
            return of(std::integral_constant<RowMetric, RowMetric::unit>{});
        default:
            return of(std::integral_constant<RowMetric, RowMetric::cosine>{});
    }
}

template <RowType T>
float distance_of(const float* q, const void* row, int64_t dim, RowMetric metric) {
    return by_metric(metric, [&](auto m) { return distance_to<T, decltype(m)::value>(q, row, dim); });
}

float distance(const float* q, const void* row, int64_t dim, RowType type, RowMetric metric) {
    switch (type) {
        case RowType::f32:
            return distance_of<RowType::f32>(q, row, dim, metric);
        case RowType::f16:
            return distance_of<RowType::f16>(q, row, dim, metric);
        case RowType::bf16:
            return distance_of<RowType::bf16>(q, row, dim, metric);
        case RowType::u8:
            return distance_of<RowType::u8>(q, row, dim, metric);
        default:
            return distance_of<RowType::i8>(q, row, dim, metric);
    }
}

// Sixteen floats from where parts of them lie; by way of memory a load would wait for the stores before it.
inline V16 joined(const float* a, const float* b) {
#if defined(__AVX512F__)
    return (V16)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(a)), _mm256_loadu_ps(b), 1);
#elif defined(ANNVQ_NEON)
    return {{vld1q_f32(a), vld1q_f32(a + 4), vld1q_f32(b), vld1q_f32(b + 4)}};
#else
    V16 out;
    std::memcpy(&out, a, 32);
    std::memcpy(reinterpret_cast<char*>(&out) + 32, b, 32);
    return out;
#endif
}

// Dimensions j to j + 15 of a product code's vector.
template <int64_t width>
V16 dimensions(const ProductPart& p, int64_t j) {
    const uint8_t* codes = p.codes + j / width;
    const float* books = p.entries + 256 * j;
    const auto entry = [&](int64_t i) { return books + (256 * i + codes[i]) * width; };
    if constexpr (width == 16) {
        V16 out;
        read(entry(0), &out);
        return out;
    } else {
        return joined(entry(0), entry(1));
    }
}

template <RowMetric M>
float product_to(const float* q, const ProductPart* parts, int count, int64_t dim) {
    const auto of = [&](const ProductPart& p, int64_t j) {
        return p.width == 16 ? dimensions<16>(p, j) : dimensions<8>(p, j);
    };
    Terms<M> terms;
    for (int64_t j = 0; j < dim; j += 16)
        terms.add(q + j, count == 2 ? of(parts[0], j) + of(parts[1], j) : of(parts[0], j));
    return terms.distance();
}

float product(const float* q, const ProductPart* parts, int count, int64_t dim, RowMetric metric) {
    return by_metric(metric, [&](auto m) { return product_to<decltype(m)::value>(q, parts, count, dim); });
}

template <int64_t width>
void add_fixed(float* sum, const float* entry) {
    typedef float V __attribute__((vector_size(width * sizeof(float))));
    V a, b;
    std::memcpy(&a, sum, sizeof a);
    std::memcpy(&b, entry, sizeof b);
    a += b;
    std::memcpy(sum, &a, sizeof a);
}

void add(float* sum, const float* entry, int64_t width) {
    int64_t j = 0;
    for (; j + 16 <= width; j += 16) add_fixed<16>(sum + j, entry + j);
    if (j + 8 <= width) add_fixed<8>(sum + j, entry + j), j += 8;
    if (j + 4 <= width) add_fixed<4>(sum + j, entry + j), j += 4;
    for (; j < width; j++) sum[j] += entry[j];
}

// sum += entries, one after the other: sixteen dimensions at a time where every entry has all of them.
void add_all(float* sum, const float* const* entries, const int32_t* starts, int32_t count, int64_t width,
             int64_t dim) {
    if (width != dim) {
        if (width == 8)
            for (int32_t m = 0; m < count; m++) add_fixed<8>(sum + starts[m], entries[m]);
        else if (width == 16)
            for (int32_t m = 0; m < count; m++) add_fixed<16>(sum + starts[m], entries[m]);
        else
            for (int32_t m = 0; m < count; m++) add(sum + starts[m], entries[m], width);
        return;
    }
    int64_t j = 0;
    for (; j + 16 <= dim; j += 16) {
        V16 s, e;
        std::memcpy(&s, sum + j, sizeof s);
        for (int32_t m = 0; m < count; m++) {
            read(entries[m] + j, &e);
            s += e;
        }
        std::memcpy(sum + j, &s, sizeof s);
    }
    for (int32_t m = 0; m < count && j < dim; m++) add(sum + j, entries[m] + j, dim - j);
}

constexpr RerankKernels kKernels{distance, add, add_all, product};

}  // namespace
}  // namespace annvq
