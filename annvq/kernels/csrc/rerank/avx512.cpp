#define ANNVQ_ISA rerank_avx512
#include "rerank/rerank_core.h"

namespace annvq {
const RerankKernels kRerankAvx512 = rerank_avx512::kKernels;
}
