#define ANNVQ_ISA rerank_avx2
#include "rerank/rerank_core.h"

namespace annvq {
const RerankKernels kRerankAvx2 = rerank_avx2::kKernels;
}
