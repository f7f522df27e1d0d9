#include "encode/encode_core.h"

namespace annvq::avx512 {
extern constexpr EncodeKernels kEncodeKernels = kKernels;
}
