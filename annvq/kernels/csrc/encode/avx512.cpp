#include "encode/encode_core.h"

namespace annvq {
extern constexpr EncodeKernels kEncodeAvx512 = kKernels;
}
