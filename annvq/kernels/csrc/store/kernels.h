// What an instruction set gives the store.
#pragma once
#include <cstdint>

namespace annvq {

struct StoreKernels {
    // Bit j of words (zeros before): bytes[j] is not 0.
    void (*pack_bits)(const uint8_t* bytes, int64_t words, uint64_t* out);
};
const StoreKernels& store_kernels();  // of the SIMD level in use

}  // namespace annvq
