#include "rerank/kernels.h"

#include "simd/pick.h"

namespace annvq {

ANNVQ_RERANK_LEVELS(ANNVQ_DECLARE_KERNELS, RerankKernels)

const RerankKernels& rerank_kernels() {
    return *pick<RerankKernels>({ANNVQ_RERANK_LEVELS(ANNVQ_OWN_KERNELS, RerankKernels)});
}

}  // namespace annvq
