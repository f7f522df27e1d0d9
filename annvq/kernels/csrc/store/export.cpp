#include "store/export.h"

namespace annvq {

void export_ids(const Snapshot& s, int64_t* ids) {
    for (const auto& list : s.lists)
        for (const Piece& piece : list->pieces)
            for (int64_t r = 0; r < piece.n; r++)
                if (piece.is_live(r)) *ids++ = piece.id(r);
}

void export_rows(const Snapshot& s, const RowFormat& format, void* codes, uint8_t* bytes, float* norms,
                 int64_t* ids) {
    int64_t i = 0;
    for (const auto& list : s.lists)
        for (const Piece& piece : list->pieces)
            for (int64_t r = 0; r < piece.n; r++) {
                if (!piece.is_live(r)) continue;
                format.read(*piece.chunk, r, static_cast<uint8_t*>(codes) + i * format.row_bytes(),
                            bytes ? bytes + i : nullptr, norms ? norms + i : nullptr);
                ids[i++] = piece.id(r);
            }
}

void export_blocks(const Snapshot& s, const RowFormat& format, uint8_t* blocks, int64_t* ids) {
    const int64_t columns = format.layout().columns();
    for (const auto& list : s.lists) {
        const int64_t n = list->rows - list->dead, whole = n / kSuperblock * kSuperblock, rest = n - whole;
        int64_t at = 0;
        for (const Piece& piece : list->pieces)
            for (int64_t r = 0; r < piece.n; r++) {
                if (!piece.is_live(r)) continue;
                const uint8_t* from =
                    piece.chunk->codes + r / kSuperblock * kSuperblock * columns + r % kSuperblock;
                uint8_t* to =
                    blocks + (at < whole ? at / kSuperblock * kSuperblock * columns + at % kSuperblock
                                         : whole * columns + (at - whole));
                const int64_t step = at < whole ? kSuperblock : rest;
                for (int64_t c = 0; c < columns; c++) to[c * step] = from[c * kSuperblock];
                ids[at++] = piece.id(r);
            }
        blocks += n * columns;
        ids += n;
    }
}

}  // namespace annvq
