#include "tables/tables_core.h"

namespace annvq {
extern constexpr TableRows kTablesAvx512 = rows;
}
