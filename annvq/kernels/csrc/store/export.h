// Copies of a snapshot's live rows, list after list.
#pragma once
#include <cstdint>

#include "store/row_format.h"
#include "store/snapshot.h"

namespace annvq {

void export_ids(const Snapshot& s, int64_t* ids);
void export_rows(const Snapshot& s, const RowFormat& format, void* codes, uint8_t* norm_bytes, float* norms,
                 int64_t* ids);
// As superblocks: whole ones, then [columns][rest] of each list.
void export_blocks(const Snapshot& s, const RowFormat& format, uint8_t* blocks, int64_t* ids);

}  // namespace annvq
