#include "store/kernels.h"

#include "simd/pick.h"

namespace annvq {

ANNVQ_STORE_LEVELS(ANNVQ_DECLARE_KERNELS, StoreKernels)

const StoreKernels& store_kernels() {
    return *pick<StoreKernels>({ANNVQ_STORE_LEVELS(ANNVQ_OWN_KERNELS, StoreKernels)});
}

}  // namespace annvq
