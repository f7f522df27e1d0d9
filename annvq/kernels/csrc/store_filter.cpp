#include "store_filter.h"

#include <algorithm>
#include <utility>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "parallel.h"

namespace annvq {
namespace {

Segment segment_of(const Piece& piece) {
    const Chunk& c = *piece.chunk;
    Segment s;
    s.codes = c.codes;
    s.n = piece.n;
    s.ids = c.ids;
    s.first_id = c.first_id;
    s.live = piece.live ? piece.live->data() : nullptr;
    s.norms_f32 = c.norms;
    s.norm_low = c.norm_low;
    s.norm_step = c.norm_step;
    return s;
}

// Bit j: bytes[j] is not 0.
uint64_t pack_bits(const uint8_t* bytes) {
    uint64_t word = 0;
#if defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128();
    for (int i = 0; i < 4; i++) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16 * i));
        const uint64_t zeros = static_cast<uint16_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(v, zero)));
        word |= (zeros ^ 0xffff) << (16 * i);
    }
#else
    for (int i = 0; i < 64; i++) word |= static_cast<uint64_t>(bytes[i] != 0) << i;
#endif
    return word;
}

void mark_from_bitmap(const Piece& piece, const Allowed& allowed, uint64_t* words) {
    for (int64_t w = 0; 64 * w < piece.n; w++) {
        const int64_t rows = std::min<int64_t>(64, piece.n - 64 * w), first = piece.chunk->first_id + 64 * w;
        if (!piece.chunk->ids && rows == 64 && first >= 0 && first + 64 <= allowed.bitmap_size) {
            words[w] = pack_bits(allowed.bitmap + first);
            continue;
        }
        for (int64_t j = 0; j < rows; j++) {
            const int64_t id = piece.id(64 * w + j);
            const bool yes = id >= 0 && id < allowed.bitmap_size && allowed.bitmap[id];
            words[w] |= static_cast<uint64_t>(yes) << j;
        }
    }
}

// Marked rows of a piece side by side in a segment of their own.
Segment copy_rows(const Segment& from, const CodeStore& store, const uint64_t* words, int64_t count,
                  SegmentList* out) {
    const int64_t block = store.block_bytes(), item = store.shape().wide ? 2 : 1;
    auto codes = std::make_shared<std::vector<uint8_t>>(superblocks(count) * block);
    auto ids = std::make_shared<std::vector<int64_t>>(count);
    auto norms = std::make_shared<std::vector<float>>(from.norms_f32 ? count : 0);
    int64_t at = 0;
    for (int64_t w = 0; 64 * w < from.n; w++)
        for (uint64_t bits = words[w]; bits; bits &= bits - 1, at++) {
            const int64_t row = 64 * w + __builtin_ctzll(bits);
            const uint8_t* in = from.codes + row / kBlock * block + row % kBlock * item;
            uint8_t* to = codes->data() + at / kBlock * block + at % kBlock * item;
            for (int64_t c = 0; c < block; c += kBlock * item) {
                to[c] = in[c];
                if (item == 2) to[c + 1] = in[c + 1];
            }
            (*ids)[at] = from.ids ? from.ids[row] : from.first_id + row;
            if (from.norms_f32) (*norms)[at] = from.norms_f32[row];
        }
    Segment s = from;
    s.codes = codes->data();
    s.n = count;
    s.ids = ids->data();
    s.live = nullptr;
    if (from.norms_f32) s.norms_f32 = norms->data();
    out->memory.insert(out->memory.end(), {codes, ids, norms});
    return s;
}

void add_filtered(const Piece& piece, const CodeStore& store, const Allowed& allowed,
                  const std::vector<int64_t>* rows, double share, SegmentList* out) {
    Segment s = segment_of(piece);
    const int64_t blocks = superblocks(s.n);
    auto words = std::make_shared<Bits>(blocks * 8, 0);
    if (rows)
        for (int64_t r : *rows) (*words)[r / 64] |= uint64_t{1} << (r % 64);
    else
        mark_from_bitmap(piece, allowed, words->data());
    int64_t count = 0;
    for (int64_t w = 0; w < blocks * 8; w++) {
        if (s.live) (*words)[w] &= s.live[w];
        count += __builtin_popcountll((*words)[w]);
    }
    if (!count) return;
    if (static_cast<double>(count) < share * static_cast<double>(s.n)) {
        out->segments.push_back(copy_rows(s, store, words->data(), count, out));
        return;
    }
    s.live = words->data();
    out->memory.push_back(words);
    out->segments.push_back(s);
}

}  // namespace

std::vector<SegmentList> segments_of(const Snapshot& s, const CodeStore& store,
                                     const std::vector<int64_t>& asked, const Allowed& allowed,
                                     const NamedRows* named, double copy_cost, int threads) {
    std::vector<SegmentList> lists(s.lists.size());
    std::vector<std::pair<size_t, size_t>> tasks;  // list, piece
    for (size_t l = 0; l < lists.size(); l++)
        for (size_t p = 0; asked[l] && p < s.lists[l]->pieces.size(); p++) {
            const Piece& piece = s.lists[l]->pieces[p];
            if (piece.dead == piece.n) continue;
            if (allowed.any_id())
                lists[l].segments.push_back(segment_of(piece));
            else if (!named || !(*named)[l][p].empty())
                tasks.emplace_back(l, p);
        }
    std::vector<SegmentList> parts(tasks.size());
    parallel_for(static_cast<int64_t>(tasks.size()), threads, [&](int64_t t) {
        const auto [l, p] = tasks[t];
        const double share = static_cast<double>(asked[l]) / (copy_cost + static_cast<double>(asked[l]));
        add_filtered(s.lists[l]->pieces[p], store, allowed, named ? &(*named)[l][p] : nullptr, share,
                     &parts[t]);
    });
    for (size_t t = 0; t < tasks.size(); t++) {
        SegmentList& list = lists[tasks[t].first];
        list.segments.insert(list.segments.end(), parts[t].segments.begin(), parts[t].segments.end());
        list.memory.insert(list.memory.end(), parts[t].memory.begin(), parts[t].memory.end());
    }
    for (SegmentList& list : lists)
        for (const Segment& segment : list.segments) list.blocks += superblocks(segment.n);
    return lists;
}

}  // namespace annvq
