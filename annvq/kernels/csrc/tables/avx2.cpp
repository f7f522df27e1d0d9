#define ANNVQ_ISA tables_avx2
#include "tables/tables_core.h"

namespace annvq {
const TableRows kTablesAvx2 = tables_avx2::rows;
}
