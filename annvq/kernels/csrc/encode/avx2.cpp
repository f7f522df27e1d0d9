#define ANNVQ_ISA encode_avx2
#include "encode/encode_core.h"

namespace annvq {
const EncodeKernels kEncodeAvx2 = encode_avx2::kKernels;
}
