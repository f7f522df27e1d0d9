#include "store/kernels.h"

namespace annvq {
namespace {

void pack_bits(const uint8_t* bytes, int64_t words, uint64_t* out) {
    for (int64_t w = 0; w < words; w++)
        for (int j = 0; j < 64; j++) out[w] |= static_cast<uint64_t>(bytes[64 * w + j] != 0) << j;
}

}  // namespace
}  // namespace annvq

namespace annvq::generic {
extern constexpr StoreKernels kStoreKernels{pack_bits};
}
