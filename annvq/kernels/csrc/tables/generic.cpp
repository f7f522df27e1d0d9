#include "tables/tables_core.h"

namespace annvq::generic {
extern constexpr TableKernels kTableKernels = {rows};
}
