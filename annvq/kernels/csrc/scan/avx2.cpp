#include "scan/shuffle_core.h"

namespace annvq {
extern constexpr BlockKernels kBlocksAvx2 = kKernels;
}
