#include "rerank/rerank_core.h"

namespace annvq::generic {
extern constexpr RerankKernels kRerankKernels = kKernels;
}
