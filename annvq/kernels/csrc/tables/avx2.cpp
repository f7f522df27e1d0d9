#include "tables/tables_core.h"

namespace annvq::avx2 {
extern constexpr TableKernels kTableKernels = {rows};
}
