// Coarse search by products of bytes in AVX2, which adds up two of them in 16 bits. So queries' bytes are of
// seven bits, from -63 to 63, and stored plus 64: two products of such by a centroid's byte fit.
#include <immintrin.h>

#include <cstring>

#include "coarse/kernels.h"

namespace annvq {
namespace {

constexpr int kWidth = 8;
constexpr int kRows = 4, kGroups = 1;  // of a tile: queries, groups of centroids

float sum_of(__m256 v) {
    float all[kWidth], sum = 0;
    _mm256_storeu_ps(all, v);
    for (float x : all) sum += x;
    return sum;
}
float least_of(__m256 v) {
    float all[kWidth];
    _mm256_storeu_ps(all, v);
    float least = all[0];
    for (float x : all) least = x < least ? x : least;
    return least;
}
float most_of(__m256 v) { return -least_of(_mm256_sub_ps(_mm256_setzero_ps(), v)); }

// The first of `n` floats, and zeros.
__m256 load_some(const float* p, int64_t n) {
    if (n >= kWidth) return _mm256_loadu_ps(p);
    float some[kWidth] = {};
    std::memcpy(some, p, n * sizeof(float));
    return _mm256_loadu_ps(some);
}

void quantize(const BytesView& b, const float* query, uint8_t* bytes, float* step, float* length,
              float* error) {
    const auto centred = [&](int32_t j) {
        return _mm256_sub_ps(load_some(query + j, b.dim - j), load_some(&b.mean[j], b.dim - j));
    };
    const __m256 sign = _mm256_set1_ps(-0.f);
    __m256 most = _mm256_setzero_ps(), squares = most, errors = most;
    for (int32_t j = 0; j < b.dim; j += kWidth) {
        const __m256 x = centred(j);
        most = _mm256_max_ps(most, _mm256_andnot_ps(sign, x));
        squares = _mm256_add_ps(squares, _mm256_mul_ps(x, x));
    }
    const float s = most_of(most) / 63.f;
    const __m256 inverse = _mm256_set1_ps(s > 0 ? 1.f / s : 0.f);
    for (int32_t j = 0; j < b.dim; j += kWidth) {
        const __m256 x = centred(j);
        const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
        const __m256 e = _mm256_sub_ps(x, _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_set1_ps(s)));
        errors = _mm256_add_ps(errors, _mm256_mul_ps(e, e));
        const __m256i up = _mm256_add_epi32(whole, _mm256_set1_epi32(64));
        const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
        const int64_t eight = _mm_cvtsi128_si64(_mm_packus_epi16(shorts, shorts));
        std::memcpy(bytes + j, &eight, 4 * b.quads - j < kWidth ? 4 * b.quads - j : kWidth);
    }
    *step = s;
    *length = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum_of(squares))));
    *error = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum_of(errors))));
}

// R queries by sixteen centroids.
template <int R>
void tile(const BytesView& b, int64_t group, const uint8_t* queries, const float* steps, float* out) {
    const int64_t stride = 4 * b.quads, first = group * kByteLanes;
    const int8_t* centroids = &b.packed[group * b.quads * 64];
    const __m256i ones = _mm256_set1_epi16(1);
    const auto load = [](const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); };
    __m256i sum[R][2];
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++)  // -64 times the sum of a centroid's bytes
            sum[r][h] = _mm256_srai_epi32(load(&b.start[first + h * kWidth]), 1);
    for (int32_t j = 0; j < b.quads; j++) {
        const __m256i c[2] = {load(centroids + 64 * int64_t{j}), load(centroids + 64 * int64_t{j} + 32)};
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, queries + r * stride + 4 * j, 4);
            const __m256i q = _mm256_set1_epi32(four);
            for (int h = 0; h < 2; h++)
                sum[r][h] =
                    _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(_mm256_maddubs_epi16(q, c[h]), ones));
        }
    }
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++) {
            const __m256 scale = _mm256_set1_ps(2 * b.step * steps[r]);
            const int64_t at = first + h * kWidth;
            _mm256_storeu_ps(out + r * b.padded + at,
                             _mm256_sub_ps(_mm256_loadu_ps(&b.norms[at]),
                                           _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum[r][h]))));
        }
}

}  // namespace
}  // namespace annvq

#include "coarse/scores_core.h"

namespace annvq {
namespace {

float bound(const float* values, int64_t padded, int64_t count, int64_t groups) {
    float least[kMostGroups];
    __m256 lowest = _mm256_set1_ps(values[0]), highest = lowest;
    for (int64_t g = 0; g < groups; g += kWidth) {
        __m256 v = _mm256_loadu_ps(values + g);
        for (int64_t i = g + groups; i + groups - g <= padded; i += groups)
            v = _mm256_min_ps(v, _mm256_loadu_ps(values + i));
        _mm256_storeu_ps(least + g, v);
        lowest = g ? _mm256_min_ps(lowest, v) : v;
        highest = g ? _mm256_max_ps(highest, v) : v;
    }
    // The bound is in (low, high]: bisection ends near the count-th.
    float low = least_of(lowest), high = most_of(highest);
    for (int step = 0; step < 10; step++) {
        const float middle = low + (high - low) / 2;
        __m256i below = _mm256_setzero_si256();  // less one for each
        for (int64_t g = 0; g < groups; g += kWidth)
            below =
                _mm256_add_epi32(below, _mm256_castps_si256(_mm256_cmp_ps(
                                            _mm256_loadu_ps(least + g), _mm256_set1_ps(middle), _CMP_LE_OQ)));
        int32_t each[kWidth];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(each), below);
        int64_t all = 0;
        for (int i = 0; i < kWidth; i++) all -= each[i];
        (all >= count ? high : low) = middle;
    }
    return high;
}

int64_t at_most(const float* values, int64_t padded, float limit, int32_t* found) {
    int64_t count = 0;
    const __m256 highest = _mm256_set1_ps(limit);
    const auto hits = [&](int64_t i) {
        return static_cast<uint32_t>(
            _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(values + i), highest, _CMP_LE_OQ)));
    };
    for (int64_t i = 0; i < padded; i += 2 * kWidth)
        for (uint32_t bits = hits(i) | hits(i + kWidth) << kWidth; bits; bits &= bits - 1)
            found[count++] = static_cast<int32_t>(i) + __builtin_ctz(bits);
    return count;
}

// Eight rows of eight values become eight columns.
inline void turn(__m256* r) {
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int h = 0; h < 2; h++) {
            u[i + 2 * h] = _mm256_shuffle_ps(t[i + h], t[i + 2 + h], 0x44);
            u[i + 2 * h + 1] = _mm256_shuffle_ps(t[i + h], t[i + 2 + h], 0xee);
        }
    for (int k = 0; k < 4; k++) {
        r[k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x20);
        r[4 + k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x31);
    }
}

void distances(const float* rows, int32_t dim, const float* x, const int32_t* chosen, int64_t count,
               float* out) {
    for (int64_t from = 0; from < count; from += kWidth) {
        const int64_t held = count - from < kWidth ? count - from : kWidth;
        const float* own[kWidth];
        for (int64_t l = 0; l < kWidth; l++)
            own[l] = rows + static_cast<int64_t>(chosen[from + (l < held ? l : held - 1)]) * dim;
        __m256 sum = _mm256_setzero_ps();
        for (int32_t j = 0; j < dim; j += kWidth) {
            const int32_t width = dim - j < kWidth ? dim - j : kWidth;
            __m256 block[kWidth];
            for (int l = 0; l < kWidth; l++) block[l] = load_some(own[l] + j, width);
            turn(block);
            for (int i = 0; i < width; i++) {
                const __m256 v = _mm256_sub_ps(_mm256_set1_ps(x[j + i]), block[i]);
                sum = _mm256_add_ps(sum, _mm256_mul_ps(v, v));
            }
        }
        float all[kWidth];
        _mm256_storeu_ps(all, sum);
        std::memcpy(out + from, all, held * sizeof(float));
    }
}

void ranks(const float* values, int64_t n, int32_t* out) {
    for (int64_t from = 0; from < n; from += kWidth) {
        const int64_t held = n - from < kWidth ? n - from : kWidth;
        const __m256 own = load_some(values + from, held);
        __m256i count = _mm256_setzero_si256();
        const auto add = [&](__m256 before) { count = _mm256_sub_epi32(count, _mm256_castps_si256(before)); };
        int64_t j = 0;
        for (; j < from; j++) add(_mm256_cmp_ps(_mm256_set1_ps(values[j]), own, _CMP_LE_OQ));
        for (; j < n; j++) add(_mm256_cmp_ps(_mm256_set1_ps(values[j]), own, _CMP_LT_OQ));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + from), count);
        // Of equal ones among these, the first is lower.
        for (int64_t i = 0; i < held; i++)
            for (int64_t l = i + 1; l < held; l++) out[from + l] += values[from + i] == values[from + l];
    }
}

}  // namespace
}  // namespace annvq

namespace annvq::avx2 {
extern constexpr CoarseKernels kCoarseKernels{quantize, scores, bound, at_most, distances, ranks};
}
