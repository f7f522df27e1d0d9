#define ANNVQ_ISA tables_avx512
#include "tables/tables_core.h"

namespace annvq {
const TableRows kTablesAvx512 = tables_avx512::rows;
}
