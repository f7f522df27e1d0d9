// Byte tables and filters by TBL, which looks up as many entries as four registers hold, 64, and gives zero
// for indices beyond them. So where a table has more, each 64 entries are looked up by themselves, with bits
// 6 and 7 of the codes flipped so that theirs are the indices below 64, and all answers are added.
//
// TBX, which leaves lanes as they are instead, would spare additions, but such chains take longer: on Arm's
// Neoverse N1 a TBX over four registers is five operations, a TBL three.
#include <arm_neon.h>

#include "scan/kernels.h"
#include "simd/bits_neon.h"

namespace annvq {
namespace {

struct Bytes {
    uint8x16_t a, b;
};
constexpr int kWidth = 32;
inline Bytes load(const uint8_t* p) { return {vld1q_u8(p), vld1q_u8(p + 16)}; }
inline void store(uint8_t* p, Bytes x) { vst1q_u8(p, x.a), vst1q_u8(p + 16, x.b); }
inline Bytes splat(int b) {
    return {vdupq_n_u8(static_cast<uint8_t>(b)), vdupq_n_u8(static_cast<uint8_t>(b))};
}
inline Bytes plus(Bytes x, Bytes y) { return {vqaddq_u8(x.a, y.a), vqaddq_u8(x.b, y.b)}; }
inline Bytes both(Bytes x, Bytes y) { return {vandq_u8(x.a, y.a), vandq_u8(x.b, y.b)}; }
inline Bytes differ(Bytes x, Bytes y) { return {veorq_u8(x.a, y.a), veorq_u8(x.b, y.b)}; }
inline Bytes mean(Bytes x, Bytes y) { return {vrhaddq_u8(x.a, y.a), vrhaddq_u8(x.b, y.b)}; }
inline Bytes lesser(Bytes x, Bytes y) { return {vminq_u8(x.a, y.a), vminq_u8(x.b, y.b)}; }
inline uint64_t at_most(Bytes x, Bytes limit) {
    return bits_of(vcleq_u8(x.a, limit.a), vcleq_u8(x.b, limit.b));
}

// A table's bytes at two registers of indices.
template <int entries>
struct Rows {
    uint8x16x4_t rows;
    explicit Rows(const uint8_t* from) : rows(vld1q_u8_x4(from)) {}
    Bytes at(Bytes x) const { return {vqtbl4q_u8(rows, x.a), vqtbl4q_u8(rows, x.b)}; }
};
template <>
struct Rows<32> {
    uint8x16x2_t rows;
    explicit Rows(const uint8_t* from) : rows(vld1q_u8_x2(from)) {}
    Bytes at(Bytes x) const { return {vqtbl2q_u8(rows, x.a), vqtbl2q_u8(rows, x.b)}; }
};

constexpr int kAtOnce = 4;  // sixteen registers with the codes; the rest hold 64 entries and their answers

template <int entries, int queries, int each>
inline void look_up(const uint8_t* codes, const uint8_t* const* tables, int offset,
                    Bytes (&sum)[queries][each]) {
    constexpr int reach = entries < 64 ? entries : 64;
    Bytes code[each];
    for (int b = 0; b < each; b++) {
        code[b] = load(codes + kWidth * b);
        if (entries < 256) code[b] = both(code[b], splat(entries - 1));
    }
    for (int q = 0; q < queries; q++)
#pragma GCC unroll 4
        for (int first = 0; first < entries; first += reach) {
            const Rows<reach> t(tables[q] + offset + first);
            for (int b = 0; b < each; b++) sum[q][b] = plus(sum[q][b], t.at(differ(code[b], splat(first))));
        }
}

template <int queries, int each>
inline void look_up_nibbles(const uint8_t* codes, const uint8_t* const* tables, int offset,
                            Bytes (&sum)[queries][each]) {
    for (int q = 0; q < queries; q++) {
        const uint8_t* table = tables[q] + offset;
        const uint8x16_t low = vld1q_u8(table), high = vld1q_u8(table + 16), last = vdupq_n_u8(15);
        for (int b = 0; b < each; b++) {
            const Bytes code = load(codes + kWidth * b);
            const auto at = [&](uint8x16_t c) { return vqtbl1q_u8(low, vandq_u8(c, last)); };
            const auto above = [&](uint8x16_t c) { return vqtbl1q_u8(high, vshrq_n_u8(c, 4)); };
            sum[q][b] = plus(plus(sum[q][b], {at(code.a), at(code.b)}), {above(code.a), above(code.b)});
        }
    }
}

}  // namespace
}  // namespace annvq

#include "scan/filter_core.h"

namespace annvq {
namespace {

float least(const float* table, int64_t size) {
    // FMIN gives NaN where it meets one.
    float32x4_t low = vdupq_n_f32(__builtin_inff());
    int64_t j = 0;
    for (; j + 4 <= size; j += 4) low = vminq_f32(low, vld1q_f32(table + j));
    for (; j < size; j++) low = vminq_f32(low, vdupq_n_f32(table[j]));
    return vminvq_f32(low);
}

void arrange(const uint8_t* bytes, const uint8_t* meaning, int entries, uint8_t* out) {
    uint8_t moved[256];
    if (meaning) {
        for (int b = 0; b < 256; b++) moved[b] = bytes[meaning[b]];
        bytes = moved;
    }
    uint8x16_t rows[16];
    for (int r = 0; r < 16; r++) rows[r] = vld1q_u8(bytes + 16 * r);
    for (int half = 8; 16 * half >= entries; half /= 2)
        for (int r = 0; r < half; r++) rows[r] = vminq_u8(rows[r], rows[r + half]);
    for (int r = 0; 16 * r < entries; r++) vst1q_u8(out + 16 * r, rows[r]);
}

// Sixteen entries take one register where 32 take two, and as long.
constexpr PooledFilter kFilters[] = {{32, filter_one<ByteCodes<32>>},
                                     {64, filter_one<ByteCodes<64>>},
                                     {128, filter_one<ByteCodes<128>>},
                                     {256, filter_one<ByteCodes<256>>}};

}  // namespace
}  // namespace annvq

namespace annvq::neon {
extern constexpr ScanKernels kScanKernels{least,
                                          quantize,
                                          arrange,
                                          count_at_most,
                                          kFilters,
                                          4,
                                          2,
                                          filter_one<NibbleCodes<false>>,
                                          filter_one<NibbleCodes<true>>,
                                          nullptr};
}
