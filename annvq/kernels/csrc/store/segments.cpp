#include "store/segments.h"

#include <algorithm>
#include <utility>

#include "common/bits.h"
#include "common/parallel.h"
#include "store/kernels.h"

namespace annvq {
namespace {

constexpr int64_t kFewLive = 8;      // rows of a superblock
constexpr int64_t kFewQueries = 4;   // that do not make up for reading a whole bitmap
constexpr int64_t kBitsPerId = 256;  // of a row of bits, for ids that are sorted by marking them there

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

void mark_from_bitmap(const Piece& piece, const Allowed& allowed, uint64_t* words) {
    const int64_t first = piece.chunk->first_id;
    int64_t r = 0;
    if (!piece.chunk->ids && first >= 0 && first < allowed.bitmap_size) {
        const int64_t whole = std::min(piece.n, allowed.bitmap_size - first) / 64;
        store_kernels().pack_bits(allowed.bitmap + first, whole, words);
        r = 64 * whole;
    }
    for (; r < piece.n; r++) {
        const int64_t id = piece.id(r);
        const bool yes = id >= 0 && id < allowed.bitmap_size && allowed.bitmap[id];
        words[r / 64] |= static_cast<uint64_t>(yes) << (r % 64);
    }
}

// As sorted_set(): ids that lie close together are marked in bits, a small part of a sort's work.
std::vector<int64_t> marked_set(const int64_t* ids, int64_t n, int64_t most) {
    Bits bits(most / 64 + 1, 0);
    for (int64_t i = 0; i < n; i++) bits[ids[i] / 64] |= uint64_t{1} << (ids[i] % 64);
    std::vector<int64_t> out;
    out.reserve(n);
    for (size_t w = 0; w < bits.size(); w++)
        for (uint64_t left = bits[w]; left; left &= left - 1)
            out.push_back(static_cast<int64_t>(64 * w) + lowest_bit(left));
    return out;
}

// Marked rows of a piece side by side in a segment of their own.
Segment copy_rows(const Segment& from, const CodeStore& store, const uint64_t* words, int64_t count,
                  SegmentList* out) {
    const int64_t block = store.format().block_bytes(), item = store.shape().wide ? 2 : 1;
    auto codes = std::make_shared<std::vector<uint8_t>>(superblocks(count) * block);
    auto ids = std::make_shared<std::vector<int64_t>>(count);
    auto norms = std::make_shared<std::vector<float>>(from.norms_f32 ? count : 0);
    int64_t at = 0;
    for (int64_t w = 0; 64 * w < from.n; w++)
        for (uint64_t bits = words[w]; bits; bits &= bits - 1, at++) {
            const int64_t row = 64 * w + lowest_bit(bits);
            const uint8_t* in = from.codes + row / kSuperblock * block + row % kSuperblock * item;
            uint8_t* to = codes->data() + at / kSuperblock * block + at % kSuperblock * item;
            for (int64_t c = 0; c < block; c += kSuperblock * item) {
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
    s.sparse = false;
    if (from.norms_f32) s.norms_f32 = norms->data();
    out->memory.insert(out->memory.end(), {codes, ids, norms});
    return s;
}

// Whether a bitmap allows so much of a piece that asking it about single rows costs less than reading it.
bool allows_much(const Piece& piece, const Allowed& allowed) {
    constexpr int64_t samples = 32;
    int64_t yes = 0;
    for (int64_t i = 0; i < samples; i++) {
        const int64_t id = piece.id(static_cast<int64_t>((2 * i + 1) * piece.n / (2 * samples)));
        yes += id >= 0 && id < allowed.bitmap_size && allowed.bitmap[id];
    }
    return 16 * yes > samples;
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
    for (int64_t w = 0; s.live && w < blocks * 8; w++) (*words)[w] &= s.live[w];
    const int64_t count = count_bits(words->data(), blocks * 8);
    if (!count) return;
    s.sparse = count < 4 * kFewLive * blocks;
    if (static_cast<double>(count) < share * static_cast<double>(s.n)) {
        out->segments.push_back(copy_rows(s, store, words->data(), count, out));
        return;
    }
    s.live = words->data();
    out->memory.push_back(words);
    out->segments.push_back(s);
}

}  // namespace

std::vector<int64_t> sorted_set(const int64_t* ids, int64_t n) {
    const auto [least, most] = std::minmax_element(ids, ids + n);
    if (n && *least >= 0 && *most / kBitsPerId < n) return marked_set(ids, n, *most);
    std::vector<int64_t> out(ids, ids + n);
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

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
        if (allowed.bitmap && asked[l] <= kFewQueries && !store.shape().wide &&
            allows_much(s.lists[l]->pieces[p], allowed)) {
            Segment segment = segment_of(s.lists[l]->pieces[p]);
            segment.allowed = allowed.bitmap;
            segment.allowed_size = allowed.bitmap_size;
            parts[t].segments.push_back(segment);
            return;
        }
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
