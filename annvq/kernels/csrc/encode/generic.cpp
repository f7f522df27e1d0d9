#include "encode/encode_core.h"

namespace annvq {
extern constexpr EncodeKernels kEncodeGeneric = kKernels;
}
