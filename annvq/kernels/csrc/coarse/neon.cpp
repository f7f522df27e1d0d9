#include "coarse/neon_core.h"

namespace annvq::neon {
extern constexpr CoarseKernels kCoarseKernels = kKernels;
}
