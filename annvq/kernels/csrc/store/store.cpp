#include "store/store.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "scan/query.h"

namespace annvq {
namespace {

constexpr int64_t kMaxBlocks = 256;   // of a chunk
constexpr int64_t kDenseRows = 4096;  // consecutive ids that are worth a chunk without ids of its own
constexpr int64_t kPlaceBits = 32;    // a place in the map: chunk serial, row

constexpr std::align_val_t kAlignment{64};

template <class T>
T* aligned(int64_t count, Chunk* owner) {
    T* p = static_cast<T*>(operator new(count * sizeof(T), kAlignment));
    owner->memory.emplace_back(p, [](void* q) { operator delete(q, kAlignment); });
    return p;
}

std::string listed(const std::vector<int64_t>& ids) {
    std::string text = "[";
    for (size_t i = 0; i < ids.size(); i++) text += (i ? ", " : "") + std::to_string(ids[i]);
    return text + "]";
}

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

// Up to five of the ids that occur more than once.
std::vector<int64_t> repeated(const int64_t* ids, int64_t n) {
    if (std::adjacent_find(ids, ids + n, std::greater_equal<int64_t>()) == ids + n) return {};
    std::vector<int64_t> sorted(ids, ids + n), out;
    std::sort(sorted.begin(), sorted.end());
    for (int64_t i = 1; i < n && out.size() < 5; i++)
        if (sorted[i] == sorted[i - 1] && (out.empty() || out.back() != sorted[i])) out.push_back(sorted[i]);
    return out;
}

// Codebooks of at most 16 entries lie two to a byte.
bool nibbles(const StoreShape& s, const uint8_t* relabel) {
    return !s.wide && !relabel && s.M > 1 && *std::max_element(s.sizes.begin(), s.sizes.end()) <= 16;
}

bool is_run(const int64_t* ids, const int64_t* picked, int64_t count) {
    for (int64_t i = 1; i < count; i++)
        if (ids[picked[i]] != ids[picked[0]] + i) return false;
    return true;
}

}  // namespace

// Lists of the current snapshot, cloned when first changed.
struct CodeStore::Draft {
    std::vector<std::shared_ptr<const List>> lists;
    std::unordered_map<int32_t, std::shared_ptr<List>> edited;
    std::unordered_set<const Bits*> own_bits;
    int64_t live;

    explicit Draft(const Snapshot& s) : lists(s.lists), live(s.live) {}

    List& edit(int32_t number) {
        auto& mine = edited[number];
        if (!mine) {
            mine = std::make_shared<List>(*lists[number]);
            lists[number] = mine;
        }
        return *mine;
    }

    Bits& edit_bits(Piece& piece) {
        if (piece.live && own_bits.count(piece.live.get())) return const_cast<Bits&>(*piece.live);
        auto bits = piece.live ? std::make_shared<Bits>(*piece.live)
                               : std::make_shared<Bits>(superblocks(piece.chunk->capacity) * 8, ~uint64_t{0});
        own_bits.insert(bits.get());
        piece.live = bits;
        return *bits;
    }
};

// Forgets the map, to be made anew, unless a change went through.
struct CodeStore::MapGuard {
    CodeStore* store;
    bool done = false;
    ~MapGuard() {
        if (done) return;
        store->mapped_ = false;
        store->map_.clear();
    }
};

CodeStore::CodeStore(StoreShape shape, const uint8_t* relabel)
    : shape_(std::move(shape)), layout_(shape_.M, shape_.norm, nibbles(shape_, relabel), relabel) {
    auto first = std::make_shared<Snapshot>();
    first->lists.assign(shape_.lists, std::make_shared<List>());
    current_ = first;
    ascending_ = shape_.lists == 1;
}

std::shared_ptr<const Snapshot> CodeStore::snapshot() const {
    std::lock_guard<std::mutex> lock(publishing_);
    return current_;
}

void CodeStore::publish(Draft& draft) {
    auto next = std::make_shared<Snapshot>();
    next->lists = std::move(draft.lists);
    next->live = draft.live;
    for (auto& [number, list] : draft.edited)
        for (size_t p = 0; p < list->pieces.size(); p++)
            places_[list->pieces[p].chunk->serial] = {number, static_cast<int64_t>(p)};
    std::shared_ptr<const Snapshot> old = next;  // freed after the lock
    std::lock_guard<std::mutex> lock(publishing_);
    old.swap(current_);
}

// -- rows in and out of chunks --

std::shared_ptr<Chunk> CodeStore::make_chunk(int64_t blocks) {
    auto chunk = std::make_shared<Chunk>();
    chunk->capacity = blocks * kSuperblock;
    const int64_t bytes = blocks * block_bytes();
    chunk->codes = aligned<uint8_t>(bytes, chunk.get());
    std::memset(chunk->codes, 0, bytes);
    chunk->bytes = bytes;
    if (shape_.norm == NormKind::floats) {
        chunk->norms = aligned<float>(chunk->capacity, chunk.get());
        chunk->bytes += chunk->capacity * 4;
    }
    chunk->serial = static_cast<uint32_t>(places_.size());
    places_.push_back({});
    return chunk;
}

int64_t CodeStore::block_bytes() const {
    if (!shape_.wide) return layout_.columns() * kSuperblock;
    return 2 * kSuperblock * (shape_.M + (shape_.norm == NormKind::levels));
}

void CodeStore::write_row(Chunk& chunk, int64_t at, const Rows& rows, int64_t row) {
    const int64_t M = shape_.M;
    if (shape_.wide) {
        const uint16_t* code = static_cast<const uint16_t*>(rows.codes) + row * M;
        uint16_t* out =
            reinterpret_cast<uint16_t*>(chunk.codes + at / kSuperblock * block_bytes()) + at % kSuperblock;
        for (int64_t m = 0; m < M; m++) out[m * kSuperblock] = code[m];
        if (shape_.norm == NormKind::levels) out[M * kSuperblock] = rows.norm_bytes[row];
    } else {
        uint8_t byte = 0;
        if (shape_.norm == NormKind::levels) byte = rows.norm_bytes[row];
        if (shape_.norm == NormKind::floats)
            byte = norm_byte(rows.norms[row], {chunk.norm_low, chunk.norm_step});
        layout_.pack(static_cast<const uint8_t*>(rows.codes) + row * M, &byte, 1, at, chunk.codes);
    }
    if (chunk.norms) chunk.norms[at] = rows.norms[row];
    if (chunk.ids) chunk.ids[at] = rows.ids[row];
}

void CodeStore::read_row(const Chunk& chunk, int64_t at, void* codes, uint8_t* byte, float* norm) const {
    const int64_t M = shape_.M;
    if (shape_.wide) {
        const uint16_t* from =
            reinterpret_cast<const uint16_t*>(chunk.codes + at / kSuperblock * block_bytes()) +
            at % kSuperblock;
        for (int64_t m = 0; m < M; m++) static_cast<uint16_t*>(codes)[m] = from[m * kSuperblock];
        if (shape_.norm == NormKind::levels) *byte = static_cast<uint8_t>(from[M * kSuperblock]);
    } else {
        layout_.unpack(chunk.codes, at, static_cast<uint8_t*>(codes),
                       shape_.norm == NormKind::levels ? byte : nullptr);
    }
    if (chunk.norms) *norm = chunk.norms[at];
}

void CodeStore::fetch_row(const Chunk& chunk, int64_t at) const {
    const int64_t item = shape_.wide ? 2 : 1;
    const uint8_t* from = chunk.codes + at / kSuperblock * block_bytes() + at % kSuperblock * item;
    for (int64_t c = 0; c < layout_.columns(); c++) __builtin_prefetch(from + c * kSuperblock * item);
}

// -- appending --

namespace {

// Whether rows picked[from..] can follow what a piece holds.
bool can_follow(const Piece& piece, const Rows& rows, int64_t row) {
    const Chunk& c = *piece.chunk;
    if (!c.writable || piece.n == c.capacity) return false;
    if (!c.ids && rows.ids[row] != c.first_id + piece.n) return false;
    return !c.norms || rows.norms[row] >= c.norm_low;
}

void set_norm_range(Chunk& chunk, const Rows& rows, const int64_t* picked, int64_t count) {
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; i++) values[i] = rows.norms[picked[i]];
    const float low = *std::min_element(values.begin(), values.end());
    const float high = *std::max_element(values.begin(), values.end());
    // Room below for rows still to come; a row that lies lower still starts a new chunk.
    const float room = std::isfinite(high - low) ? (high - low) / 8 : 0.f;
    values.push_back(low - room);
    const NormRange range = norm_range(values.data(), static_cast<int64_t>(values.size()));
    chunk.norm_low = range.low;
    chunk.norm_step = range.step;
}

}  // namespace

// Appends rows[picked[0..n)].
void CodeStore::append_to_list(List& list, const Rows& rows, const int64_t* picked, int64_t n) {
    for (int64_t i = 0; i < n;) {
        if (list.pieces.empty() || !can_follow(list.pieces.back(), rows, picked[i])) {
            const int64_t left = n - i;
            const int64_t blocks =
                std::clamp(std::max(superblocks(left), superblocks(list.rows) / 8), int64_t{1}, kMaxBlocks);
            auto chunk = make_chunk(blocks);
            const int64_t first = std::min(left, chunk->capacity);
            if (first >= kDenseRows && is_run(rows.ids, picked + i, first)) {
                chunk->first_id = rows.ids[picked[i]];
            } else {
                chunk->ids = aligned<int64_t>(chunk->capacity, chunk.get());
            }
            if (chunk->norms) set_norm_range(*chunk, rows, picked + i, first);
            list.pieces.push_back({chunk, 0, nullptr, 0});
        }
        Piece& piece = list.pieces.back();
        Chunk& chunk = const_cast<Chunk&>(*piece.chunk);  // rows past every snapshot's count are the writer's
        for (; i < n && can_follow(piece, rows, picked[i]); i++) {
            write_row(chunk, piece.n, rows, picked[i]);
            piece.n++;
            list.rows++;
        }
    }
}

int64_t CodeStore::append(const Rows& rows, Fresh fresh) {
    if (rows.n == 0) return 0;
    std::lock_guard<std::mutex> lock(writing_);
    if (fresh == Fresh::known && !ids_read_) fresh = Fresh::checked;  // nobody can know what is in a map
    if (fresh != Fresh::known) {
        const auto twice = repeated(rows.ids, rows.n);
        if (!twice.empty()) refuse("ids must be new and differ from one another; repeated: " + listed(twice));
    }
    if (fresh == Fresh::checked) require_new(rows.ids, rows.n);
    if (fresh == Fresh::replaces) prepare_lookup();

    Draft draft(*current_);
    MapGuard guard{this};
    const int64_t replaced = fresh == Fresh::replaces ? kill(draft, rows.ids, rows.n) : 0;
    rewrite_edited(draft);
    // Ids that go back end the ascending order; places are then kept in the map.
    bool ascending = ascending_;
    int64_t last = last_id_;
    for (int64_t i = 0; i < rows.n && ascending; i++) {
        ascending = rows.ids[i] > last;
        last = rows.ids[i];
    }
    append_rows(draft, rows);
    publish(draft);
    ascending_ = ascending;
    last_id_ = last;
    guard.done = true;
    return replaced;
}

// Appends rows to their lists, and to the map where there is one.
void CodeStore::append_rows(Draft& draft, const Rows& rows) {
    std::vector<int64_t> order(rows.n);
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto list_of = [&](int64_t i) { return rows.lists ? rows.lists[i] : 0; };
    if (rows.lists)
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t a, int64_t b) { return list_of(a) < list_of(b); });
    draft.live += rows.n;
    if (mapped_) map_.reserve(draft.live);
    for (int64_t i = 0, next; i < rows.n; i = next) {
        const int32_t number = list_of(order[i]);
        for (next = i; next < rows.n && list_of(order[next]) == number;) next++;
        List& list = draft.edit(number);
        const size_t last = list.pieces.empty() ? 0 : list.pieces.size() - 1;
        const int64_t filled = list.pieces.empty() ? 0 : list.pieces.back().n;
        append_to_list(list, rows, order.data() + i, next - i);
        if (mapped_) map_rows(list, last, filled);
    }
}

// Puts live rows of a list into the map, from a row of a piece on.
void CodeStore::map_rows(const List& list, size_t piece, int64_t row) {
    for (size_t p = piece; p < list.pieces.size(); p++, row = 0) {
        const uint64_t serial = list.pieces[p].chunk->serial;
        for (int64_t r = row; r < list.pieces[p].n; r++)
            if (list.pieces[p].is_live(r))
                map_.set(list.pieces[p].id(r), serial << kPlaceBits | static_cast<uint64_t>(r));
    }
}

// -- ids --

void CodeStore::require_new(const int64_t* ids, int64_t n) {
    const bool after = ascending_known_ && ascending_ && *std::min_element(ids, ids + n) > last_id_;
    if (after) return;
    prepare_lookup();
    std::vector<int64_t> there;
    int32_t list;
    int64_t piece, row;
    for (int64_t i = 0; i < n && there.size() < 5; i++)
        if (locate(*current_, ids[i], &list, &piece, &row)) there.push_back(ids[i]);
    if (!there.empty()) refuse("ids must be new and differ from one another; repeated: " + listed(there));
}

// Makes locate() work: decides whether ids ascend, else builds the map.
void CodeStore::prepare_lookup() {
    const Snapshot& s = *current_;
    if (!ascending_known_) {
        bool up = shape_.lists == 1;
        int64_t last = -1;
        for (const auto& list : s.lists)
            for (const Piece& piece : list->pieces) {
                const int64_t step = piece.chunk->ids ? 1 : std::max<int64_t>(1, piece.n - 1);
                for (int64_t r = 0; r < piece.n && up; r += step) {
                    up = piece.id(r) > last;
                    last = piece.id(r);
                }
            }
        ascending_ = up;
        last_id_ = last;
        ascending_known_ = true;
    }
    ids_read_ = ids_read_ || ascending_;
    if (ascending_ || mapped_) return;
    IdMap map;
    map.reserve(s.live);
    for (const auto& list : s.lists)
        for (const Piece& piece : list->pieces) {
            const uint64_t serial = piece.chunk->serial;
            for (int64_t r = 0; r < piece.n; r++) {
                if (!piece.is_live(r)) continue;
                const int64_t id = piece.id(r);
                if (id < 0) refuse("ids must not be negative, got " + std::to_string(id));
                if (!map.insert(id, serial << kPlaceBits | static_cast<uint64_t>(r)))
                    refuse("ids must differ from one another; repeated: " + listed({id}));
            }
        }
    map_ = std::move(map);
    mapped_ = ids_read_ = true;
}

bool CodeStore::find_ascending(const List& list, int64_t id, int64_t* piece, int64_t* row) const {
    const auto& pieces = list.pieces;
    auto after = std::upper_bound(pieces.begin(), pieces.end(), id,
                                  [](int64_t v, const Piece& p) { return p.n == 0 || v < p.id(0); });
    if (after == pieces.begin()) return false;
    const Piece& p = *std::prev(after);
    int64_t at;
    if (!p.chunk->ids) {
        at = id - p.chunk->first_id;
    } else {
        at = std::lower_bound(p.chunk->ids, p.chunk->ids + p.n, id) - p.chunk->ids;
    }
    if (at < 0 || at >= p.n || p.id(at) != id || !p.is_live(at)) return false;
    *piece = std::prev(after) - pieces.begin();
    *row = at;
    return true;
}

bool CodeStore::locate(const Snapshot& s, int64_t id, int32_t* list, int64_t* piece, int64_t* row) {
    if (ascending_) {
        *list = 0;
        return find_ascending(*s.lists[0], id, piece, row);
    }
    const uint64_t place = map_.find(id);
    if (place == IdMap::kNone) return false;
    const Place& p = places_[place >> kPlaceBits];
    *list = p.list;
    *piece = p.piece;
    *row = static_cast<int64_t>(place & ((uint64_t{1} << kPlaceBits) - 1));
    return true;
}

// Marks the rows of those ids that are there as removed; returns how many.
int64_t CodeStore::kill(Draft& draft, const int64_t* ids, int64_t n) {
    int32_t list;
    int64_t piece, row, killed = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!locate(*current_, ids[i], &list, &piece, &row)) continue;
        List& l = draft.edit(list);
        Piece& p = l.pieces[piece];
        draft.edit_bits(p)[row / 64] &= ~(uint64_t{1} << (row % 64));
        p.dead++;
        l.dead++;
        draft.live--;
        killed++;
    }
    return killed;
}

void CodeStore::remove(const int64_t* ids, int64_t n) {
    if (n == 0) return;
    std::lock_guard<std::mutex> lock(writing_);
    const auto twice = repeated(ids, n);
    if (!twice.empty()) refuse("ids must differ from one another; repeated: " + listed(twice));
    prepare_lookup();
    std::vector<int64_t> missing;
    int32_t list;
    int64_t piece, row;
    for (int64_t i = 0; i < n && missing.size() < 5; i++)
        if (!locate(*current_, ids[i], &list, &piece, &row)) missing.push_back(ids[i]);
    if (!missing.empty()) refuse("ids must be stored in the index; not there: " + listed(missing));
    Draft draft(*current_);
    MapGuard guard{this};
    kill(draft, ids, n);
    if (mapped_)
        for (int64_t i = 0; i < n; i++) map_.erase(ids[i]);
    rewrite_edited(draft);
    publish(draft);
    guard.done = true;
}

void CodeStore::contains(const int64_t* ids, int64_t n, uint8_t* out) {
    std::lock_guard<std::mutex> lock(writing_);
    if (n) prepare_lookup();
    int32_t list;
    int64_t piece, row;
    for (int64_t i = 0; i < n; i++) out[i] = locate(*current_, ids[i], &list, &piece, &row);
}

void CodeStore::rows(const int64_t* ids, int64_t n, void* codes, uint8_t* bytes, float* norms,
                     int32_t* lists) {
    if (n == 0) return;
    std::lock_guard<std::mutex> lock(writing_);
    prepare_lookup();
    // Ids at random: what the next rows need is fetched while those before are read.
    constexpr int64_t at_once = 32;
    const Chunk* chunks[at_once];
    int64_t places[at_once];
    std::vector<int64_t> missing;
    for (int64_t from = 0; from < n && missing.size() < 5; from += at_once) {
        const int64_t count = std::min(at_once, n - from);
        for (int64_t i = 0; i < count && !ascending_; i++) map_.fetch(ids[from + i]);
        for (int64_t i = 0; i < count; i++) {
            int64_t piece;
            chunks[i] = nullptr;
            if (!locate(*current_, ids[from + i], &lists[from + i], &piece, &places[i])) {
                missing.push_back(ids[from + i]);
                continue;
            }
            chunks[i] = current_->lists[lists[from + i]]->pieces[piece].chunk.get();
            fetch_row(*chunks[i], places[i]);
        }
        for (int64_t i = 0; i < count; i++)
            if (const int64_t to = from + i; chunks[i])
                read_row(*chunks[i], places[i], static_cast<uint8_t*>(codes) + to * row_bytes(),
                         bytes ? bytes + to : nullptr, norms ? norms + to : nullptr);
    }
    if (missing.size() > 5) missing.resize(5);
    if (!missing.empty()) refuse("ids must be stored in the index; not there: " + listed(missing));
}

// -- rewriting --

// Copies the live rows of pieces that hold many removed ones (of all that hold any, where `all`) into new
// chunks.
void CodeStore::rewrite(Draft& draft, int32_t number, bool all) {
    const auto wasteful = [&](const Piece& p) {
        if (all) return p.dead > 0;
        // A mapped chunk is rewritten on request only: the copy would take memory that the map does not.
        return p.chunk->writable && (p.dead == p.n || (p.dead >= kSuperblock / 2 && 3 * p.dead >= p.n));
    };
    const List& before = *draft.lists[number];
    if (std::none_of(before.pieces.begin(), before.pieces.end(), wasteful)) return;
    const std::vector<Piece> old = before.pieces;
    List& list = draft.edit(number);
    list = List{};
    std::vector<uint8_t> codes, bytes;
    std::vector<float> norms;
    std::vector<int64_t> ids, picked;
    const int64_t width = row_bytes();
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
        for (int64_t r = 0; r < old[p].n; r++) {
            if (!old[p].is_live(r)) continue;
            codes.resize(codes.size() + width);
            bytes.push_back(0);
            norms.push_back(0);
            ids.push_back(old[p].id(r));
            read_row(*old[p].chunk, r, codes.data() + codes.size() - width, &bytes.back(), &norms.back());
            if (static_cast<int64_t>(ids.size()) == kMaxBlocks * kSuperblock) flush();
        }
    }
    flush();
    if (mapped_) map_rows(list, 0, 0);
}

void CodeStore::rewrite_edited(Draft& draft) {
    std::vector<int32_t> numbers;
    for (const auto& [number, edited] : draft.edited) numbers.push_back(number);
    for (int32_t number : numbers) rewrite(draft, number, false);
}

void CodeStore::compact() {
    std::lock_guard<std::mutex> lock(writing_);
    Draft draft(*current_);
    MapGuard guard{this};
    for (int32_t l = 0; l < shape_.lists; l++) rewrite(draft, l, true);
    publish(draft);
    guard.done = true;
}

// -- whole stores --

void CodeStore::adopt(int32_t number, const uint8_t* codes, const int64_t* ids, int64_t first_id, int64_t n,
                      std::shared_ptr<void> owner) {
    if (n == 0) return;
    std::lock_guard<std::mutex> lock(writing_);
    constexpr int64_t most = kMaxBlocks * kSuperblock;
    const int64_t columns = layout_.columns(), mapped = owner ? n / kSuperblock * kSuperblock : 0;
    Draft draft(*current_);
    List& list = draft.edit(number);
    for (int64_t at = 0; at < mapped; at += most) {
        auto chunk = std::make_shared<Chunk>();
        chunk->memory.push_back(owner);
        chunk->codes = const_cast<uint8_t*>(codes) + at * columns;
        chunk->ids = ids ? const_cast<int64_t*>(ids) + at : nullptr;
        chunk->first_id = first_id + at;
        chunk->capacity = std::min(most, mapped - at);
        chunk->bytes = chunk->capacity * columns;
        chunk->writable = false;
        chunk->serial = static_cast<uint32_t>(places_.size());
        places_.push_back({});
        list.pieces.push_back({chunk, chunk->capacity, nullptr, 0});
    }
    for (int64_t at = mapped; at < n; at += most) {
        const int64_t rows = std::min(most, n - at), whole = rows / kSuperblock * kSuperblock,
                      rest = rows - whole;
        auto chunk = make_chunk(superblocks(rows));
        std::memcpy(chunk->codes, codes + at * columns, whole * columns);
        for (int64_t c = 0; c < columns; c++)
            std::memcpy(chunk->codes + whole * columns + c * kSuperblock,
                        codes + (at + whole) * columns + c * rest, rest);
        chunk->first_id = first_id + at;
        if (ids) {
            chunk->ids = aligned<int64_t>(chunk->capacity, chunk.get());
            std::memcpy(chunk->ids, ids + at, rows * 8);
        }
        list.pieces.push_back({chunk, rows, nullptr, 0});
    }
    list.rows += n;
    draft.live += n;
    mapped_ = ascending_known_ = ids_read_ = false;
    publish(draft);
}

int64_t CodeStore::code_bytes() const {
    int64_t bytes = 0;
    const auto s = snapshot();
    for (const auto& list : s->lists)
        for (const Piece& piece : list->pieces)
            bytes += piece.chunk->bytes + (piece.live ? static_cast<int64_t>(piece.live->size()) * 8 : 0);
    return bytes;
}

int64_t CodeStore::id_bytes() {
    std::lock_guard<std::mutex> lock(writing_);
    int64_t bytes = map_.bytes();
    const auto s = snapshot();
    for (const auto& list : s->lists)
        for (const Piece& piece : list->pieces) bytes += piece.chunk->ids ? piece.chunk->capacity * 8 : 0;
    return bytes;
}

void CodeStore::export_ids(const Snapshot& s, int64_t* ids) const {
    for (const auto& list : s.lists)
        for (const Piece& piece : list->pieces)
            for (int64_t r = 0; r < piece.n; r++)
                if (piece.is_live(r)) *ids++ = piece.id(r);
}

void CodeStore::export_rows(const Snapshot& s, void* codes, uint8_t* bytes, float* norms,
                            int64_t* ids) const {
    int64_t i = 0;
    for (const auto& list : s.lists)
        for (const Piece& piece : list->pieces)
            for (int64_t r = 0; r < piece.n; r++) {
                if (!piece.is_live(r)) continue;
                read_row(*piece.chunk, r, static_cast<uint8_t*>(codes) + i * row_bytes(),
                         bytes ? bytes + i : nullptr, norms ? norms + i : nullptr);
                ids[i++] = piece.id(r);
            }
}

void CodeStore::export_blocks(const Snapshot& s, uint8_t* blocks, int64_t* ids) const {
    const int64_t columns = layout_.columns();
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
