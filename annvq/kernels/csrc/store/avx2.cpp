#include <immintrin.h>

#include "store/kernels.h"

namespace annvq {
namespace {

void pack_bits(const uint8_t* bytes, int64_t words, uint64_t* out) {
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t w = 0; w < words; w++) {
        const auto* from = reinterpret_cast<const __m256i*>(bytes + 64 * w);
        const uint32_t low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(from), zero));
        const uint32_t high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(from + 1), zero));
        out[w] = ~(static_cast<uint64_t>(high) << 32 | low);
    }
}

}  // namespace
}  // namespace annvq

namespace annvq::avx2 {
extern constexpr StoreKernels kStoreKernels{pack_bits};
}
