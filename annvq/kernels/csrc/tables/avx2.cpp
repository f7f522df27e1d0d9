#include "tables/tables_core.h"

namespace annvq {
extern constexpr TableRows kTablesAvx2 = rows;
}
