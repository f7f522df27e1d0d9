#define ANNVQ_ISA encode_avx512
#include "encode/encode_core.h"

namespace annvq {
const EncodeKernels kEncodeAvx512 = encode_avx512::kKernels;
}
