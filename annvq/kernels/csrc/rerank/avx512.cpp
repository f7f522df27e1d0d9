#include "rerank/rerank_core.h"

namespace annvq::avx512 {
extern constexpr RerankKernels kRerankKernels = kKernels;
}
