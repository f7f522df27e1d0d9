#include "tables/tables_core.h"

namespace annvq::avx512 {
extern constexpr TableKernels kTableKernels = {rows};
}
