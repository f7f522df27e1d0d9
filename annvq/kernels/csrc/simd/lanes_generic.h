// Lanes (see simd/lanes.h) in plain C++: what the others must equal.
#pragma once
#include <cstdint>

namespace annvq {
namespace {

constexpr int kTileRows = 2, kTileGroups = 1;  // vectors by groups of lanes whose sums stay in registers
constexpr int kTileQueries = 4, kTileSquareQueries = 4;  // of tables of products, and of squares

struct Lanes {
    float v[16];
};
struct Ints {
    int32_t v[16];
};
struct Mask {
    int32_t v[16];
};
#define ANNVQ_EACH for (int i = 0; i < 16; i++)
inline Lanes load(const float* p) {
    Lanes r;
    ANNVQ_EACH r.v[i] = p[i];
    return r;
}
inline void store(float* p, const Lanes& a) { ANNVQ_EACH p[i] = a.v[i]; }
inline void store(int32_t* p, const Ints& a) { ANNVQ_EACH p[i] = a.v[i]; }
inline void store_rounded(int16_t* p, const Lanes& a) {
    ANNVQ_EACH {
        float v = a.v[i] < 32767.f ? a.v[i] : 32767.f;
        v = v > -32768.f ? v : -32768.f;
        p[i] = static_cast<int16_t>(__builtin_lrintf(v));
    }
}
inline Lanes splat(float a) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a;
    return r;
}
inline Ints splat(int32_t a) {
    Ints r;
    ANNVQ_EACH r.v[i] = a;
    return r;
}
inline Lanes operator+(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a.v[i] + b.v[i];
    return r;
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a.v[i] - b.v[i];
    return r;
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
    Lanes r;
    ANNVQ_EACH r.v[i] = a.v[i] * b.v[i];
    return r;
}
inline Mask operator<(const Lanes& a, const Lanes& b) {
    Mask r;
    ANNVQ_EACH r.v[i] = a.v[i] < b.v[i];
    return r;
}
inline Mask operator<=(const Lanes& a, const Lanes& b) {
    Mask r;
    ANNVQ_EACH r.v[i] = a.v[i] <= b.v[i];
    return r;
}
inline Lanes select(const Mask& m, const Lanes& yes, const Lanes& no) {
    Lanes r;
    ANNVQ_EACH r.v[i] = m.v[i] ? yes.v[i] : no.v[i];
    return r;
}
inline Ints select(const Mask& m, const Ints& yes, const Ints& no) {
    Ints r;
    ANNVQ_EACH r.v[i] = m.v[i] ? yes.v[i] : no.v[i];
    return r;
}
inline uint32_t bits(const Mask& m) {
    uint32_t r = 0;
    ANNVQ_EACH r |= static_cast<uint32_t>(m.v[i]) << i;
    return r;
}
#undef ANNVQ_EACH

// Thirty-two 16-bit integers; sums saturate.
struct Shorts {
    int16_t v[32];
};
#define ANNVQ_EACH for (int i = 0; i < 32; i++)
inline Shorts load(const int16_t* p) {
    Shorts r;
    ANNVQ_EACH r.v[i] = p[i];
    return r;
}
inline void store(int16_t* p, const Shorts& a) { ANNVQ_EACH p[i] = a.v[i]; }
inline Shorts add(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH {
        const int32_t sum = a.v[i] + b.v[i];
        r.v[i] = static_cast<int16_t>(sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum);
    }
    return r;
}
inline Shorts lower(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return r;
}
inline Shorts splat(int16_t a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = a;
    return r;
}
inline void keep_lower(Shorts& value, Shorts& where, const Shorts& b, const Shorts& there) {
    ANNVQ_EACH {
        where.v[i] = b.v[i] < value.v[i] ? there.v[i] : where.v[i];
        value.v[i] = b.v[i] < value.v[i] ? b.v[i] : value.v[i];
    }
}
inline int16_t wrapped(int32_t a) { return static_cast<int16_t>(static_cast<uint16_t>(a)); }
inline Shorts plus(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] + b.v[i]);
    return r;
}
inline Shorts minus(const Shorts& a, const Shorts& b) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] - b.v[i]);
    return r;
}
inline Shorts times_256(const Shorts& a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] * 256);
    return r;
}
inline Shorts high_bytes(const Shorts& a) {
    Shorts r;
    ANNVQ_EACH r.v[i] = static_cast<int16_t>(a.v[i] >> 8);
    return r;
}
inline Shorts shifted(const Shorts& a, int by) {
    Shorts r;
    ANNVQ_EACH r.v[i] = wrapped(a.v[i] * (1 << by));
    return r;
}
inline uint32_t equal(const Shorts& a, int16_t b) {
    uint32_t r = 0;
    ANNVQ_EACH r |= static_cast<uint32_t>(a.v[i] == b) << i;
    return r;
}
inline int16_t lowest(const Shorts& a) {
    int16_t r = a.v[0];
    ANNVQ_EACH r = a.v[i] < r ? a.v[i] : r;
    return r;
}
#undef ANNVQ_EACH

}  // namespace
}  // namespace annvq
