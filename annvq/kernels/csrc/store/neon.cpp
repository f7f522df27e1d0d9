#include <arm_neon.h>

#include "store/kernels.h"

namespace annvq {
namespace {

void pack_bits(const uint8_t* bytes, int64_t words, uint64_t* out) {
    const uint8x8_t weights = vcreate_u8(0x8040201008040201u);
    for (int64_t w = 0; w < words; w++) {
        const auto weighed = [&](int i) {
            const uint8x16_t own = vld1q_u8(bytes + 64 * w + 16 * i);
            return vandq_u8(vtstq_u8(own, own), vcombine_u8(weights, weights));
        };
        const uint8x16_t all =
            vpaddq_u8(vpaddq_u8(weighed(0), weighed(1)), vpaddq_u8(weighed(2), weighed(3)));
        out[w] = vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
    }
}

}  // namespace
}  // namespace annvq

namespace annvq::neon {
extern constexpr StoreKernels kStoreKernels{pack_bits};
}
