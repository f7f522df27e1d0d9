#include "store/draft.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace annvq {
namespace {

constexpr int64_t kSpareShare = 16;  // of the superblocks of a list that grows, one in so many is kept free
// One in so many rows of a chunk removed, or any of a few: the others move to a new one. (Consecutive ids,
// which take no memory, would take some there.)
constexpr int64_t kShortShare = 16, kFewRows = 128, kLongShare = 8, kRunShare = 3;
constexpr int64_t kDenseRows = 4096;  // consecutive ids that are worth a chunk without ids of its own

bool is_run(const int64_t* ids, const int64_t* picked, int64_t count) {
    for (int64_t i = 1; i < count; i++)
        if (ids[picked[i]] != ids[picked[0]] + i) return false;
    return true;
}

// Whether a row can follow what a piece holds, if there is room for it.
bool suits(const Piece& piece, const Rows& rows, int64_t row) {
    const Chunk& c = *piece.chunk;
    const int64_t id = rows.ids[row];
    if (!c.writable || (c.ids ? c.ids.narrow && !fits_narrow(id) : id != c.first_id + piece.n)) return false;
    return !c.norms || rows.norms[row] >= c.norm_low;
}

bool can_follow(const Piece& piece, const Rows& rows, int64_t row) {
    return piece.n < piece.chunk->capacity && suits(piece, rows, row);
}

// Rows of a new chunk for `left` more of a list: as many as fill superblocks, and the rest in a short one.
// Lists that grow by little at a time get a little more than they hold once they are long, so that chunks
// stay few.
int64_t rows_to_hold(const List& list, int64_t left) {
    const bool grows = !list.pieces.empty() && list.pieces.back().chunk->capacity == kSuperblock;
    const int64_t spare = grows ? list.rows / kSuperblock / kSpareShare : 0;
    const int64_t blocks = std::min(std::max(left / kSuperblock, spare), kChunkBlocks);
    return blocks ? blocks * kSuperblock : left;
}

}  // namespace

List& Draft::edit(int32_t number) {
    auto& mine = edited_[number];
    if (!mine) {
        mine = std::make_shared<List>(*lists_[number]);
        lists_[number] = mine;
    }
    return *mine;
}

Bits& Draft::edit_bits(Piece& piece) {
    if (piece.live && own_bits_.count(piece.live.get())) return const_cast<Bits&>(*piece.live);
    auto bits = piece.live ? std::make_shared<Bits>(*piece.live)
                           : std::make_shared<Bits>(superblocks(piece.chunk->capacity) * 8, ~uint64_t{0});
    own_bits_.insert(bits.get());
    piece.live = bits;
    return *bits;
}

// For rows[picked[0..n)], or the first of them.
std::shared_ptr<Chunk> Draft::new_chunk(const List& list, const Rows& rows, const int64_t* picked,
                                        int64_t n) {
    const int64_t room = rows_to_hold(list, n), first = std::min(n, room);
    const bool narrow =
        std::all_of(picked, picked + first, [&](int64_t row) { return fits_narrow(rows.ids[row]); });
    auto chunk = format_.make_chunk(room, ids_.next_serial(), narrow);
    if (first >= kDenseRows && is_run(rows.ids, picked, first))
        chunk->first_id = rows.ids[picked[0]];
    else if (!chunk->ids)
        RowFormat::make_ids(*chunk, narrow);
    if (chunk->norms) set_norm_range(*chunk, rows, picked, first);
    return chunk;
}

// Appends rows[picked[0..n)].
void Draft::append_to_list(List& list, const Rows& rows, const int64_t* picked, int64_t n) {
    for (int64_t i = 0; i < n;) {
        if (list.pieces.empty() || !can_follow(list.pieces.back(), rows, picked[i])) {
            if (!list.pieces.empty() && list.pieces.back().chunk->is_short() &&
                suits(list.pieces.back(), rows, picked[i])) {
                // What it held stays where it was in the list, under the same serial.
                Piece& last = list.pieces.back();
                last.chunk = format_.grown(*last.chunk, last.n, std::min(last.n + n - i, kSuperblock));
            } else {
                list.pieces.push_back({new_chunk(list, rows, picked + i, n - i), 0, nullptr, 0});
            }
        }
        Piece& piece = list.pieces.back();
        Chunk& chunk = const_cast<Chunk&>(*piece.chunk);  // rows past every snapshot's count are the writer's
        for (; i < n && can_follow(piece, rows, picked[i]); i++) {
            format_.write(chunk, piece.n, rows, picked[i]);
            piece.n++;
            list.rows++;
        }
    }
}

void Draft::append(const Rows& rows) {
    std::vector<int64_t> order(rows.n);
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto list_of = [&](int64_t i) { return rows.lists ? rows.lists[i] : 0; };
    if (rows.lists)
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t a, int64_t b) { return list_of(a) < list_of(b); });
    live_ += rows.n;
    ids_.reserve(live_);
    for (int64_t i = 0, next; i < rows.n; i = next) {
        const int32_t number = list_of(order[i]);
        for (next = i; next < rows.n && list_of(order[next]) == number;) next++;
        List& list = edit(number);
        const size_t last = list.pieces.empty() ? 0 : list.pieces.size() - 1;
        const int64_t filled = list.pieces.empty() ? 0 : list.pieces.back().n;
        append_to_list(list, rows, order.data() + i, next - i);
        ids_.add(list, last, filled);
    }
}

int64_t Draft::kill(const int64_t* ids, int64_t n) {
    RowPlace at;
    int64_t killed = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!ids_.find(before_, ids[i], &at)) continue;
        List& l = edit(at.list);
        Piece& p = l.pieces[at.piece];
        edit_bits(p)[at.row / 64] &= ~(uint64_t{1} << (at.row % 64));
        p.dead++;
        l.dead++;
        live_--;
        killed++;
    }
    return killed;
}

void Draft::rewrite(int32_t number) {
    const auto wasteful = [&](const Piece& p) {
        // A mapped chunk is not rewritten: the copy would take memory that the map does not.
        const int64_t share = p.chunk->ids ? kLongShare : kRunShare;
        const bool many = p.chunk->is_short() ? p.n <= kFewRows || kShortShare * p.dead >= p.n
                                              : p.dead >= kSuperblock / 2 && share * p.dead >= p.n;
        return p.chunk->writable && p.dead && (p.dead == p.n || many);
    };
    const List& before = *lists_[number];
    if (std::none_of(before.pieces.begin(), before.pieces.end(), wasteful)) return;
    const std::vector<Piece> old = before.pieces;
    List& list = edit(number);
    list = List{};
    std::vector<uint8_t> codes, bytes;
    std::vector<float> norms;
    std::vector<int64_t> ids, picked;
    const int64_t width = format_.row_bytes();
    const auto flush = [&] {
        Rows rows{
            static_cast<int64_t>(ids.size()), codes.data(), bytes.data(), norms.data(), ids.data(), nullptr};
        picked.resize(ids.size());
        std::iota(picked.begin(), picked.end(), int64_t{0});
        append_to_list(list, rows, picked.data(), rows.n);
        codes.clear(), bytes.clear(), norms.clear(), ids.clear();
    };
    for (size_t p = 0; p < old.size(); p++) {
        if (!wasteful(old[p])) {
            flush();
            list.pieces.push_back(old[p]);
            list.rows += old[p].n;
            list.dead += old[p].dead;
            continue;
        }
        left_.push_back(old[p].chunk->serial);
        for (int64_t r = 0; r < old[p].n; r++) {
            if (!old[p].is_live(r)) continue;
            codes.resize(codes.size() + width);
            bytes.push_back(0);
            norms.push_back(0);
            ids.push_back(old[p].id(r));
            format_.read(*old[p].chunk, r, codes.data() + codes.size() - width, &bytes.back(), &norms.back());
            if (static_cast<int64_t>(ids.size()) == kChunkBlocks * kSuperblock) flush();
        }
    }
    flush();
    ids_.add(list, 0, 0);
}

void Draft::rewrite_edited() {
    std::vector<int32_t> numbers;
    for (const auto& [number, edited] : edited_) numbers.push_back(number);
    for (int32_t number : numbers) rewrite(number);
}

void Draft::adopt(int32_t number, const uint8_t* codes, const int64_t* ids, int64_t first_id, int64_t n,
                  const std::shared_ptr<void>& owner) {
    constexpr int64_t most = kChunkBlocks * kSuperblock;
    const int64_t columns = format_.layout().columns(), mapped = owner ? n / kSuperblock * kSuperblock : 0;
    List& list = edit(number);
    for (int64_t at = 0; at < mapped; at += most) {
        auto chunk = std::make_shared<Chunk>();
        chunk->memory.push_front(owner);
        chunk->codes = const_cast<uint8_t*>(codes) + at * columns;
        if (ids) chunk->ids = ids + at;
        chunk->first_id = first_id + at;
        chunk->capacity = std::min(most, mapped - at);
        chunk->writable = false;
        chunk->serial = ids_.next_serial();
        list.pieces.push_back({chunk, chunk->capacity, nullptr, 0});
    }
    for (int64_t at = mapped, rows; at < n; at += rows) {
        rows = n - at < kSuperblock ? n - at : std::min(most, (n - at) / kSuperblock * kSuperblock);
        // (Ids that nobody has read may be anything.)
        const bool narrow =
            ids ? std::all_of(ids + at, ids + at + rows, fits_narrow) : fits_narrow(first_id + at + rows);
        auto chunk = format_.make_chunk(rows, ids_.next_serial(), narrow);
        format_.take_blocks(*chunk, codes + at * columns, rows);
        chunk->first_id = first_id + at;
        if (ids && !chunk->ids) RowFormat::make_ids(*chunk, narrow);
        for (int64_t r = 0; chunk->ids && r < rows; r++)
            chunk->set_id(r, ids ? ids[at + r] : first_id + at + r);
        list.pieces.push_back({chunk, rows, nullptr, 0});
    }
    list.rows += n;
    live_ += n;
}

void Draft::leave_closed() {
    for (size_t number = 0; number < lists_.size(); number++) {
        const auto& pieces = lists_[number]->pieces;
        const auto leaves = [](const Piece& p) { return p.chunk->place.is_closed(); };
        if (std::none_of(pieces.begin(), pieces.end(), leaves)) continue;
        for (Piece& piece : edit(static_cast<int32_t>(number)).pieces)
            if (leaves(piece)) piece.chunk = format_.grown(*piece.chunk, piece.n, piece.n);
    }
}

std::shared_ptr<const Snapshot> Draft::finish() {
    auto next = std::make_shared<Snapshot>();
    next->lists = std::move(lists_);
    next->live = live_;
    ids_.give_back(left_);  // nothing fails from here on
    for (auto& [number, list] : edited_) ids_.place(number, *list);
    return next;
}

}  // namespace annvq
