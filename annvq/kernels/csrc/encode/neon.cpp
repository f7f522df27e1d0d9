#include "encode/encode_core.h"

namespace annvq::neon {
extern constexpr EncodeKernels kEncodeKernels = kKernels;
}
