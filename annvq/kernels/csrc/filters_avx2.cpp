#define ANNVQ_ISA blocks_avx2
#include "filters_shuffle.h"

namespace annvq {

const BlockKernels kBlocksAvx2 = ANNVQ_ISA::kKernels;

}  // namespace annvq
