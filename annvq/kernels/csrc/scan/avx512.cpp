#include "scan/shuffle_core.h"

namespace annvq::avx512 {
extern constexpr ScanKernels kScanKernels = kKernels;
}
