#define ANNVQ_ISA tables_generic
#include "tables/tables_core.h"

namespace annvq {
const TableRows kTablesGeneric = tables_generic::rows;
}
