#include "tables/tables_core.h"

namespace annvq::neon {
extern constexpr TableKernels kTableKernels = {rows};
}
