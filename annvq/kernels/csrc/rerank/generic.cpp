#include "rerank/rerank_core.h"

namespace annvq {
extern constexpr RerankKernels kRerankGeneric = kKernels;
}
