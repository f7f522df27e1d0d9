#include "rerank/rerank_core.h"

namespace annvq::neon {
extern constexpr RerankKernels kRerankKernels = kKernels;
}
