// Lanes (see simd/lanes.h) in NEON, on machines with 64-bit ARM's 32 registers of sixteen bytes.
#pragma once
#include <arm_neon.h>

#include <cstdint>

#include "simd/bits_neon.h"

namespace annvq {
namespace {

constexpr int kTileRows = 4, kTileGroups = 1;  // vectors by groups of lanes whose sums stay in registers
constexpr int kTileQueries = 2, kTileSquareQueries = 2;  // of tables of products, and of squares

struct Lanes {
    float32x4_t v[4];
};
struct Ints {
    int32x4_t v[4];
};
struct Mask {
    uint32x4_t v[4];
};
#define ANNVQ_EACH for (int i = 0; i < 4; i++)
inline Lanes load(const float* p) {
    Lanes r;
    ANNVQ_EACH r.v[i] = vld1q_f32(p + 4 * i);
    return r;
}
inline void store(float* p, const Lanes& a) { ANNVQ_EACH vst1q_f32(p + 4 * i, a.v[i]); }
inline void store(int32_t* p, const Ints& a) { ANNVQ_EACH vst1q_s32(p + 4 * i, a.v[i]); }
inline void store_rounded(int16_t* p, const Lanes& a) {
    // FMINNM prefers numbers to what is none.
    int16x4_t r[4];
    ANNVQ_EACH {
        const float32x4_t low = vminnmq_f32(a.v[i], vdupq_n_f32(32767.f));
        r[i] = vmovn_s32(vcvtnq_s32_f32(vmaxnmq_f32(low, vdupq_n_f32(-32768.f))));
    }
    ANNVQ_EACH vst1_s16(p + 4 * i, r[i]);
}
inline Lanes splat(float a) {
    Lanes r;
    ANNVQ_EACH r.v[i] = vdupq_n_f32(a);
    return r;
}
inline Ints splat(int32_t a) {
    Ints r;
    ANNVQ_EACH r.v[i] = vdupq_n_s32(a);
    return r;
}
inline Lanes operator+(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = vaddq_f32(a.v[i], b.v[i]);
    return r;
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = vsubq_f32(a.v[i], b.v[i]);
    return r;
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = vmulq_f32(a.v[i], b.v[i]);
    return r;
}
inline Mask operator<(const Lanes& a, const Lanes& b) {
    Mask r;
    ANNVQ_EACH r.v[i] = vcltq_f32(a.v[i], b.v[i]);
    return r;
}
inline Mask operator<=(const Lanes& a, const Lanes& b) {
    Mask r;
    ANNVQ_EACH r.v[i] = vcleq_f32(a.v[i], b.v[i]);
    return r;
}
inline Lanes select(const Mask& m, const Lanes& yes, const Lanes& no) {
    Lanes r;
    ANNVQ_EACH r.v[i] = vbslq_f32(m.v[i], yes.v[i], no.v[i]);
    return r;
}
inline Ints select(const Mask& m, const Ints& yes, const Ints& no) {
    Ints r;
    ANNVQ_EACH r.v[i] = vbslq_s32(m.v[i], yes.v[i], no.v[i]);
    return r;
}
inline uint8x16_t bytes_of_words(uint16x8_t a, uint16x8_t b) {
    return vuzp1q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b));
}
inline uint32_t bits(const Mask& m) {
    const auto words = [&](int i) {
        return vuzp1q_u16(vreinterpretq_u16_u32(m.v[i]), vreinterpretq_u16_u32(m.v[i + 1]));
    };
    return bits_of(bytes_of_words(words(0), words(2)), vdupq_n_u8(0));
}

// Thirty-two 16-bit integers; sums saturate.
struct Shorts {
    int16x8_t v[4];
};
inline Shorts load(const int16_t* p) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vld1q_s16(p + 8 * i);
    return r;
}
inline void store(int16_t* p, const Shorts& a) { ANNVQ_EACH vst1q_s16(p + 8 * i, a.v[i]); }
inline Shorts add(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vqaddq_s16(a.v[i], b.v[i]);
    return r;
}
inline Shorts lower(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vminq_s16(a.v[i], b.v[i]);
    return r;
}
inline Shorts splat(int16_t a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vdupq_n_s16(a);
    return r;
}
inline void keep_lower(Shorts& value, Shorts& where, const Shorts& b, const Shorts& there) {
    ANNVQ_EACH {
        where.v[i] = vbslq_s16(vcltq_s16(b.v[i], value.v[i]), there.v[i], where.v[i]);
        value.v[i] = vminq_s16(value.v[i], b.v[i]);
    }
}
inline Shorts plus(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vaddq_s16(a.v[i], b.v[i]);
    return r;
}
inline Shorts minus(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vsubq_s16(a.v[i], b.v[i]);
    return r;
}
inline Shorts times_256(const Shorts& a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vshlq_n_s16(a.v[i], 8);
    return r;
}
inline Shorts high_bytes(const Shorts& a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vshrq_n_s16(a.v[i], 8);
    return r;
}
inline Shorts shifted(const Shorts& a, int by) {
    Shorts r;
    ANNVQ_EACH r.v[i] = vshlq_s16(a.v[i], vdupq_n_s16(static_cast<int16_t>(by)));
    return r;
}
inline uint32_t equal(const Shorts& a, int16_t b) {
    const int16x8_t other = vdupq_n_s16(b);
    const auto half = [&](int i) {
        return bytes_of_words(vceqq_s16(a.v[i], other), vceqq_s16(a.v[i + 1], other));
    };
    return bits_of(half(0), half(2));
}
inline int16_t lowest(const Shorts& a) {
    return vminvq_s16(vminq_s16(vminq_s16(a.v[0], a.v[1]), vminq_s16(a.v[2], a.v[3])));
}
#undef ANNVQ_EACH

}  // namespace
}  // namespace annvq
