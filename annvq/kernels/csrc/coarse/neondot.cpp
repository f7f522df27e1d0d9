#include "coarse/neon_core.h"

namespace annvq::neondot {
extern constexpr CoarseKernels kCoarseKernels = kKernels;
}
