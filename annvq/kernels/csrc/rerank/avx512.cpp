#include "rerank/rerank_core.h"

namespace annvq {
extern constexpr RerankKernels kRerankAvx512 = kKernels;
}
