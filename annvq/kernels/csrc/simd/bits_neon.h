// A bit for each of 32 bytes that are all ones or none, in NEON, which has no instruction for it.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace annvq {
namespace {

inline uint32_t bits_of(uint8x16_t a, uint8x16_t b) {
    const uint8x8_t weights = vcreate_u8(0x8040201008040201u);
    const uint8x16_t w = vcombine_u8(weights, weights);
    // Sums of pairs, of four, and of the eight whose weights are the bits of a byte.
    const uint8x16_t two = vpaddq_u8(vandq_u8(a, w), vandq_u8(b, w)), four = vpaddq_u8(two, two);
    return vgetq_lane_u32(vreinterpretq_u32_u8(vpaddq_u8(four, four)), 0);
}

}  // namespace
}  // namespace annvq
