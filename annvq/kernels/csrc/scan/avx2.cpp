#include "scan/shuffle_core.h"

namespace annvq::avx2 {
extern constexpr ScanKernels kScanKernels = kKernels;
}
