// Coarse search by products of bytes (AVX-512 VNNI).
#include <immintrin.h>

#include <cstring>

#include "coarse/kernels.h"

namespace annvq {
namespace {

void quantize(const BytesView& b, const float* query, uint8_t* bytes, float* step, float* length,
              float* error) {
    const auto rest = [&](int32_t j) {
        return _cvtu32_mask16((1u << (b.dim - j < 16 ? b.dim - j : 16)) - 1);
    };
    const auto centred = [&](int32_t j, __mmask16 m) {
        return _mm512_sub_ps(_mm512_maskz_loadu_ps(m, query + j), _mm512_maskz_loadu_ps(m, &b.mean[j]));
    };
    __m512 most = _mm512_setzero_ps(), squares = most, errors = most;
    for (int32_t j = 0; j < b.dim; j += 16) {
        const __m512 x = centred(j, rest(j));
        most = _mm512_max_ps(most, _mm512_abs_ps(x));
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    const float s = _mm512_reduce_max_ps(most) / 127.f;
    const __m512 inverse = _mm512_set1_ps(s > 0 ? 1.f / s : 0.f);
    for (int32_t j = 0; j < b.dim; j += 16) {
        const __m512 x = centred(j, rest(j));
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
        const __m512 e = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(s), x);
        errors = _mm512_fmadd_ps(e, e, errors);
        const int32_t held = 4 * b.quads - j < 16 ? 4 * b.quads - j : 16;
        _mm_mask_storeu_epi8(bytes + j, _cvtu32_mask16((1u << held) - 1),
                             _mm_xor_si128(_mm512_cvtsepi32_epi8(whole), _mm_set1_epi8(-128)));
    }
    *step = s;
    *length = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(_mm512_reduce_add_ps(squares))));
    *error = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(_mm512_reduce_add_ps(errors))));
}

constexpr int kRows = 6, kGroups = 4;  // of a tile: queries, groups of centroids

template <int R>
void tile(const BytesView& b, int64_t panel, const uint8_t* queries, const float* steps, float* out) {
    constexpr int G = kGroups;
    const int64_t stride = 4 * b.quads;
    const int8_t* centroids = &b.packed[panel * G * b.quads * 64];
    const int64_t first = panel * G * kByteLanes;
    __m512i sum[R][G];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) sum[r][g] = _mm512_loadu_si512(&b.start[first + g * kByteLanes]);
    for (int32_t j = 0; j < b.quads; j++) {
        __m512i c[G];
        for (int g = 0; g < G; g++) c[g] = _mm512_loadu_si512(centroids + (g * b.quads + j) * int64_t{64});
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, queries + r * stride + 4 * j, 4);
            const __m512i q = _mm512_set1_epi32(four);
            for (int g = 0; g < G; g++) sum[r][g] = _mm512_dpbusd_epi32(sum[r][g], q, c[g]);
        }
    }
    for (int r = 0; r < R; r++) {
        const __m512 scale = _mm512_set1_ps(2 * b.step * steps[r]);
        for (int g = 0; g < G; g++) {
            const __m512 norms = _mm512_loadu_ps(&b.norms[first + g * kByteLanes]);
            _mm512_storeu_ps(out + r * b.padded + first + g * kByteLanes,
                             _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(sum[r][g]), norms));
        }
    }
}

}  // namespace
}  // namespace annvq

#include "coarse/scores_core.h"

namespace annvq {
namespace {

float bound(const float* values, int64_t padded, int64_t count, int64_t groups) {
    float least[kMostGroups];
    __m512 lowest = _mm512_set1_ps(values[0]), highest = lowest;
    for (int64_t g = 0; g < groups; g += 16) {
        __m512 v = _mm512_loadu_ps(values + g);
        for (int64_t i = g + groups; i + groups - g <= padded; i += groups)
            v = _mm512_min_ps(v, _mm512_loadu_ps(values + i));
        _mm512_storeu_ps(least + g, v);
        lowest = g ? _mm512_min_ps(lowest, v) : v;
        highest = g ? _mm512_max_ps(highest, v) : v;
    }
    // The bound is in (low, high]: bisection ends near the count-th.
    float low = _mm512_reduce_min_ps(lowest), high = _mm512_reduce_max_ps(highest);
    for (int step = 0; step < 10; step++) {
        const float middle = low + (high - low) / 2;
        int64_t below = 0;
        for (int64_t g = 0; g < groups; g += 16)
            below += __builtin_popcount(_cvtmask16_u32(
                _mm512_cmp_ps_mask(_mm512_loadu_ps(least + g), _mm512_set1_ps(middle), _CMP_LE_OQ)));
        (below >= count ? high : low) = middle;
    }
    return high;
}

int64_t at_most(const float* values, int64_t padded, float limit, int32_t* found) {
    int64_t count = 0;
    const __m512 highest = _mm512_set1_ps(limit);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t i = 0; i < padded; i += 16) {
        const __mmask16 hits = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), highest, _CMP_LE_OQ);
        const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(i)));
        // Compressing into memory takes Zen processors a hundred cycles.
        _mm512_storeu_si512(found + count, _mm512_maskz_compress_epi32(hits, numbers));
        count += __builtin_popcount(_cvtmask16_u32(hits));
    }
    return count;
}

// Sixteen rows of sixteen values become sixteen columns.
inline void turn(__m512* r) {
    __m512 t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    const auto low = [](__m512 a, __m512 b) {
        return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    const auto high = [](__m512 a, __m512 b) {
        return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    for (int i = 0; i < 16; i += 4) {
        u[i] = low(t[i], t[i + 2]), u[i + 1] = high(t[i], t[i + 2]);
        u[i + 2] = low(t[i + 1], t[i + 3]), u[i + 3] = high(t[i + 1], t[i + 3]);
    }
    for (int k = 0; k < 4; k++) {
        const __m512 a = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88);
        const __m512 b = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88);
        const __m512 c = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xdd);
        const __m512 d = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xdd);
        r[k] = _mm512_shuffle_f32x4(a, b, 0x88), r[k + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        r[k + 4] = _mm512_shuffle_f32x4(c, d, 0x88), r[k + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
}

void distances(const float* rows, int32_t dim, const float* x, const int32_t* chosen, int64_t count,
               float* out) {
    for (int64_t from = 0; from < count; from += 16) {
        const float* own[16];
        for (int64_t l = 0; l < 16; l++)
            own[l] = rows + static_cast<int64_t>(chosen[from + l < count ? from + l : count - 1]) * dim;
        __m512 sum = _mm512_setzero_ps();
        const auto add = [&](__m512 column, int32_t j) {
            const __m512 v = _mm512_sub_ps(_mm512_set1_ps(x[j]), column);
            sum = _mm512_add_ps(sum, _mm512_mul_ps(v, v));
        };
        int32_t j = 0;
        __m512 block[16];
        for (; j + 16 <= dim; j += 16) {
            for (int l = 0; l < 16; l++) block[l] = _mm512_loadu_ps(own[l] + j);
            turn(block);
            for (int i = 0; i < 16; i++) add(block[i], j + i);
        }
        if (j < dim) {
            const __mmask16 rest = _cvtu32_mask16((1u << (dim - j)) - 1);
            for (int l = 0; l < 16; l++) block[l] = _mm512_maskz_loadu_ps(rest, own[l] + j);
            turn(block);
            for (int i = 0; i < dim - j; i++) add(block[i], j + i);
        }
        const int64_t left = count - from;
        _mm512_mask_storeu_ps(out + from, _cvtu32_mask16((1u << (left < 16 ? left : 16)) - 1), sum);
    }
}

void ranks(const float* values, int64_t n, int32_t* out) {
    const __m512i one = _mm512_set1_epi32(1);
    for (int64_t from = 0; from < n; from += 16) {
        const __m512 own = _mm512_maskz_loadu_ps(
            _cvtu32_mask16(n - from < 16 ? (1u << (n - from)) - 1 : 0xffffu), values + from);
        __m512i count = _mm512_setzero_si512();
        const auto add = [&](__mmask16 before) { count = _mm512_mask_add_epi32(count, before, count, one); };
        int64_t j = 0;
        for (; j < from; j++) add(_mm512_cmp_ps_mask(_mm512_set1_ps(values[j]), own, _CMP_LE_OQ));
        for (; j < n && j < from + 16; j++) {
            const __m512 value = _mm512_set1_ps(values[j]);
            const __mmask16 after = _cvtu32_mask16(0xfffeu << (j - from));
            add(_kor_mask16(_mm512_cmp_ps_mask(value, own, _CMP_LT_OQ),
                            _mm512_mask_cmp_ps_mask(after, value, own, _CMP_EQ_OQ)));
        }
        for (; j < n; j++) add(_mm512_cmp_ps_mask(_mm512_set1_ps(values[j]), own, _CMP_LT_OQ));
        _mm512_storeu_si512(out + from, count);
    }
}

}  // namespace
}  // namespace annvq

namespace annvq::avx512vbmi {
extern constexpr CoarseKernels kCoarseKernels{quantize, scores, bound, at_most, distances, ranks};
}
