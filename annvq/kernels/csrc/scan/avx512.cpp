#define ANNVQ_ISA blocks_avx512
#include "scan/shuffle_core.h"

namespace annvq {

const BlockKernels kBlocksAvx512 = ANNVQ_ISA::kKernels;

}  // namespace annvq
