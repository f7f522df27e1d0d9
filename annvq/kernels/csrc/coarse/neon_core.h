// Coarse search by products of bytes in NEON, compiled with and without SDOT (simd/pick.h). Queries' bytes
// are signed here, as centroids' are.
#pragma once
#include <arm_neon.h>

#include <cstring>

#include "coarse/kernels.h"

namespace annvq {
namespace {

void quantize(const BytesView& b, const float* query, uint8_t* bytes, float* step, float* length,
              float* error) {
    const auto centred = [&](int32_t j) {
        float rest[4] = {};
        const float* own = query + j;
        if (b.dim - j < 4) {
            std::memcpy(rest, own, (b.dim - j) * sizeof(float));
            own = rest;
        }
        return vsubq_f32(vld1q_f32(own), vld1q_f32(&b.mean[j]));
    };
    float32x4_t most = vdupq_n_f32(0), squares = most, errors = most;
    for (int32_t j = 0; j < b.dim; j += 4) {
        const float32x4_t x = centred(j);
        most = vmaxq_f32(most, vabsq_f32(x));
        squares = vfmaq_f32(squares, x, x);
    }
    const float s = vmaxvq_f32(most) / 127.f, inverse = s > 0 ? 1.f / s : 0.f;
    for (int32_t j = 0; j < b.dim; j += 4) {
        const float32x4_t x = centred(j);
        const int32x4_t whole = vcvtnq_s32_f32(vmulq_n_f32(x, inverse));
        const float32x4_t e = vfmsq_n_f32(x, vcvtq_f32_s32(whole), s);
        errors = vfmaq_f32(errors, e, e);
        const int16x4_t narrow = vqmovn_s32(whole);
        const int8x8_t four = vqmovn_s16(vcombine_s16(narrow, narrow));
        const int32_t held = vget_lane_s32(vreinterpret_s32_s8(four), 0);
        std::memcpy(bytes + j, &held, sizeof held);
    }
    *step = s;
    *length = __builtin_sqrtf(vaddvq_f32(squares));
    *error = __builtin_sqrtf(vaddvq_f32(errors));
}

inline int32_t four_bytes(const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return four;
}

// Sixteen centroids' scores from their products with a query.
inline void write_scores(const BytesView& b, int64_t first, const int32x4_t* products, float step,
                         float* out) {
    for (int i = 0; i < 4; i++)
        vst1q_f32(out + first + 4 * i, vfmsq_n_f32(vld1q_f32(&b.norms[first + 4 * i]),
                                                   vcvtq_f32_s32(products[i]), 2 * b.step * step));
}

#if defined(__ARM_FEATURE_DOTPROD)
constexpr int kRows = 4;

// R queries by sixteen centroids.
template <int R>
void tile(const BytesView& b, int64_t group, const uint8_t* queries, const float* steps, float* out) {
    const int64_t stride = 4 * b.quads;
    const int8_t* centroids = &b.packed[group * b.quads * 64];
    int32x4_t sum[R][4] = {};
    for (int32_t j = 0; j < b.quads; j++) {
        int8x16_t c[4];
        for (int i = 0; i < 4; i++) c[i] = vld1q_s8(centroids + 64 * j + 16 * i);
        for (int r = 0; r < R; r++) {
            const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(queries + r * stride + 4 * j)));
            for (int i = 0; i < 4; i++) sum[r][i] = vdotq_s32(sum[r][i], c[i], q);
        }
    }
    for (int r = 0; r < R; r++) write_scores(b, kByteLanes * group, sum[r], steps[r], out + r * b.padded);
}
#else
constexpr int kRows = 2;

// R queries by sixteen centroids. Two products of bytes of at most 127 fit 16 bits: sums of two groups of
// four dimensions are added up there first.
template <int R>
void tile(const BytesView& b, int64_t group, const uint8_t* queries, const float* steps, float* out) {
    const int64_t stride = 4 * b.quads;
    const int8_t* centroids = &b.packed[group * b.quads * 64];
    int32x4_t low[R][4] = {}, high[R][4] = {};  // of two centroids each, two sums for each of them
    const auto query = [&](int r, int32_t j) {
        return vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(queries + r * stride + 4 * j)));
    };
    for (int32_t j = 0; j < b.quads; j += 2) {
        const bool two = j + 1 < b.quads;
        int8x16_t q[R], next[R];
        for (int r = 0; r < R; r++) q[r] = query(r, j), next[r] = two ? query(r, j + 1) : vdupq_n_s8(0);
        for (int i = 0; i < 4; i++) {
            const int8x16_t c = vld1q_s8(centroids + 64 * j + 16 * i);
            const int8x16_t d = two ? vld1q_s8(centroids + 64 * (j + 1) + 16 * i) : c;
            for (int r = 0; r < R; r++) {
                const int16x8_t a = vmull_s8(vget_low_s8(c), vget_low_s8(q[r])), b = vmull_high_s8(c, q[r]);
                low[r][i] = vpadalq_s16(low[r][i], vmlal_s8(a, vget_low_s8(d), vget_low_s8(next[r])));
                high[r][i] = vpadalq_s16(high[r][i], vmlal_high_s8(b, d, next[r]));
            }
        }
    }
    for (int r = 0; r < R; r++) {
        int32x4_t sum[4];
        for (int i = 0; i < 4; i++) sum[i] = vpaddq_s32(low[r][i], high[r][i]);
        write_scores(b, kByteLanes * group, sum, steps[r], out + r * b.padded);
    }
}
#endif

constexpr int kGroups = 1;  // of centroids in a tile

}  // namespace
}  // namespace annvq

#include "coarse/scores_core.h"

namespace annvq {
namespace {

float bound(const float* values, int64_t padded, int64_t count, int64_t groups) {
    float least[kMostGroups];
    float32x4_t lowest = vdupq_n_f32(values[0]), highest = lowest;
    for (int64_t g = 0; g < groups; g += 16) {
        float32x4_t v[4];
        for (int l = 0; l < 4; l++) v[l] = vld1q_f32(values + g + 4 * l);
        for (int64_t i = g + groups; i + groups - g <= padded; i += groups)
            for (int l = 0; l < 4; l++) v[l] = vminq_f32(v[l], vld1q_f32(values + i + 4 * l));
        for (int l = 0; l < 4; l++) {
            vst1q_f32(least + g + 4 * l, v[l]);
            lowest = g || l ? vminq_f32(lowest, v[l]) : v[l];
            highest = g || l ? vmaxq_f32(highest, v[l]) : v[l];
        }
    }
    // The bound is in (low, high]: bisection ends near the count-th.
    float low = vminvq_f32(lowest), high = vmaxvq_f32(highest);
    for (int step = 0; step < 10; step++) {
        const float middle = low + (high - low) / 2;
        uint32x4_t below[4] = {};
        for (int64_t g = 0; g < groups; g += 16)
            for (int l = 0; l < 4; l++)
                below[l] = vsubq_u32(below[l], vcleq_f32(vld1q_f32(least + g + 4 * l), vdupq_n_f32(middle)));
        const uint32x4_t all = vaddq_u32(vaddq_u32(below[0], below[1]), vaddq_u32(below[2], below[3]));
        (vaddvq_u32(all) >= count ? high : low) = middle;
    }
    return high;
}

int64_t at_most(const float* values, int64_t padded, float limit, int32_t* found) {
    int64_t count = 0;
    const float32x4_t highest = vdupq_n_f32(limit);
    for (int64_t i = 0; i < padded; i += 16) {
        const auto hits = [&](int l) {
            return vreinterpretq_u16_u32(vcleq_f32(vld1q_f32(values + i + 4 * l), highest));
        };
        const uint16x8_t low = vuzp1q_u16(hits(0), hits(1)), high = vuzp1q_u16(hits(2), hits(3));
        const uint8x16_t bytes = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
        // Narrowed to four bits each, of which one counts. Few lists are found, so most are passed over at
        // once.
        const uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(bytes), 4);
        uint64_t bits = vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x1111111111111111u;
        for (; bits; bits &= bits - 1) found[count++] = static_cast<int32_t>(i + __builtin_ctzll(bits) / 4);
    }
    return count;
}

void distances(const float* rows, int32_t dim, const float* x, const int32_t* chosen, int64_t count,
               float* out) {
    for (int64_t from = 0; from < count; from += 16) {
        const float* own[16];
        for (int64_t l = 0; l < 16; l++)
            own[l] = rows + static_cast<int64_t>(chosen[from + l < count ? from + l : count - 1]) * dim;
        float32x4_t sum[4] = {};
        const auto add = [&](int g, float32x4_t column, int32_t j) {
            const float32x4_t v = vsubq_f32(vdupq_n_f32(x[j]), column);
            sum[g] = vaddq_f32(sum[g], vmulq_f32(v, v));
        };
        int32_t j = 0;
        for (; j + 4 <= dim; j += 4)
            for (int g = 0; g < 4; g++) {
                // Four rows of four values become four columns.
                const float32x4_t a = vld1q_f32(own[4 * g] + j), b = vld1q_f32(own[4 * g + 1] + j);
                const float32x4_t c = vld1q_f32(own[4 * g + 2] + j), d = vld1q_f32(own[4 * g + 3] + j);
                const float64x2_t ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b)),
                                  cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d)),
                                  odd_ab = vreinterpretq_f64_f32(vtrn2q_f32(a, b)),
                                  odd_cd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
                add(g, vreinterpretq_f32_f64(vtrn1q_f64(ab, cd)), j);
                add(g, vreinterpretq_f32_f64(vtrn1q_f64(odd_ab, odd_cd)), j + 1);
                add(g, vreinterpretq_f32_f64(vtrn2q_f64(ab, cd)), j + 2);
                add(g, vreinterpretq_f32_f64(vtrn2q_f64(odd_ab, odd_cd)), j + 3);
            }
        for (; j < dim; j++)
            for (int g = 0; g < 4; g++) {
                const float column[4] = {own[4 * g][j], own[4 * g + 1][j], own[4 * g + 2][j],
                                         own[4 * g + 3][j]};
                add(g, vld1q_f32(column), j);
            }
        float all[16];
        for (int g = 0; g < 4; g++) vst1q_f32(all + 4 * g, sum[g]);
        std::memcpy(out + from, all, (count - from < 16 ? count - from : 16) * sizeof(float));
    }
}

void ranks(const float* values, int64_t n, int32_t* out) {
    for (int64_t from = 0; from < n; from += 16) {
        const int64_t held = n - from < 16 ? n - from : 16;
        float own[16] = {};
        std::memcpy(own, values + from, held * sizeof(float));
        float32x4_t v[4];
        uint32x4_t count[4] = {};
        for (int l = 0; l < 4; l++) v[l] = vld1q_f32(own + 4 * l);
        int64_t j = 0;
        for (; j < from; j++)
            for (int l = 0; l < 4; l++)
                count[l] = vsubq_u32(count[l], vcleq_f32(vdupq_n_f32(values[j]), v[l]));
        for (; j < n; j++)
            for (int l = 0; l < 4; l++)
                count[l] = vsubq_u32(count[l], vcltq_f32(vdupq_n_f32(values[j]), v[l]));
        for (int l = 0; l < 4; l++) vst1q_s32(out + from + 4 * l, vreinterpretq_s32_u32(count[l]));
        // Of equal ones among these, the first is lower.
        for (int64_t i = 0; i < held; i++)
            for (int64_t l = i + 1; l < held; l++) out[from + l] += own[i] == own[l];
    }
}

constexpr CoarseKernels kKernels{quantize, scores, bound, at_most, distances, ranks};

}  // namespace
}  // namespace annvq
