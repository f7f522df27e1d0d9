#include "tables/kernels.h"

#include "simd/pick.h"

namespace annvq {

ANNVQ_TABLES_LEVELS(ANNVQ_DECLARE_KERNELS, TableKernels)

const TableKernels& table_kernels() {
    return *pick<TableKernels>({ANNVQ_TABLES_LEVELS(ANNVQ_OWN_KERNELS, TableKernels)});
}

}  // namespace annvq
