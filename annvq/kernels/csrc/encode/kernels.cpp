#include "encode/kernels.h"

#include "simd/pick.h"

namespace annvq {

ANNVQ_ENCODE_LEVELS(ANNVQ_DECLARE_KERNELS, EncodeKernels)

const EncodeKernels& encode_kernels() {
    return *pick<EncodeKernels>({ANNVQ_ENCODE_LEVELS(ANNVQ_OWN_KERNELS, EncodeKernels)});
}

}  // namespace annvq
