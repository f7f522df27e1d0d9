#define ANNVQ_ISA encode_generic
#include "encode/encode_core.h"

namespace annvq {
const EncodeKernels kEncodeGeneric = encode_generic::kKernels;
}
