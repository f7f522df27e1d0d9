#include "scan/kernels.h"

#include "simd/pick.h"

namespace annvq {

ANNVQ_SCAN_LEVELS(ANNVQ_DECLARE_KERNELS, ScanKernels)

const ScanKernels& scan_kernels() {
    return *pick<ScanKernels>({ANNVQ_SCAN_LEVELS(ANNVQ_OWN_KERNELS, ScanKernels)});
}

}  // namespace annvq
