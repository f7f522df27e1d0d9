#include "rerank/rerank_core.h"

namespace annvq::avx2 {
extern constexpr RerankKernels kRerankKernels = kKernels;
}
