#define ANNVQ_ISA rerank_generic
#include "rerank/rerank_core.h"

namespace annvq {
const RerankKernels kRerankGeneric = rerank_generic::kKernels;
}
