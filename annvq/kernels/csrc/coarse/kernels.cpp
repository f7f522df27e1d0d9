#include "coarse/kernels.h"

#include "simd/pick.h"

namespace annvq {

ANNVQ_COARSE_LEVELS(ANNVQ_DECLARE_KERNELS, CoarseKernels)

const CoarseKernels* coarse_kernels() {
    return pick<CoarseKernels>({ANNVQ_COARSE_LEVELS(ANNVQ_OWN_KERNELS, CoarseKernels)});
}

}  // namespace annvq
