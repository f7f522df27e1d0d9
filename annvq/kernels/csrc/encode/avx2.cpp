#include "encode/encode_core.h"

namespace annvq::avx2 {
extern constexpr EncodeKernels kEncodeKernels = kKernels;
}
