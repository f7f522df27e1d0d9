#include <arm_neon.h>

#include "simd/bits_neon.h"
#include "store/kernels.h"

namespace annvq {
namespace {

void pack_bits(const uint8_t* bytes, int64_t words, uint64_t* out) {
    const auto half = [](const uint8_t* from) {
        const uint8x16_t a = vld1q_u8(from), b = vld1q_u8(from + 16);
        return uint64_t{bits_of(vtstq_u8(a, a), vtstq_u8(b, b))};
    };
    for (int64_t w = 0; w < words; w++) out[w] = half(bytes + 64 * w) | half(bytes + 64 * w + 32) << 32;
}

}  // namespace
}  // namespace annvq

namespace annvq::neon {
extern constexpr StoreKernels kStoreKernels{pack_bits};
}
