#include "scan/shuffle_core.h"

namespace annvq {
extern constexpr BlockKernels kBlocksAvx512 = kKernels;
}
