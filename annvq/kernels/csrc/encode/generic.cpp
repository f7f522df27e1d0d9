#include "encode/encode_core.h"

namespace annvq::generic {
extern constexpr EncodeKernels kEncodeKernels = kKernels;
}
