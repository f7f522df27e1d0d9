#define ANNVQ_ISA blocks_avx2
#include "scan/shuffle_core.h"

namespace annvq {

const BlockKernels kBlocksAvx2 = ANNVQ_ISA::kKernels;

}  // namespace annvq
