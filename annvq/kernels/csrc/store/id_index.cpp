#include "store/id_index.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

namespace annvq {
namespace {

// Stored ids that are read for each of many that are looked up, rather than a map made: some microseconds.
constexpr int64_t kReadPerId = 1024;
constexpr int64_t kPlaceBits = 32;             // a place in the map: chunk serial, row
constexpr uint64_t kAsked = IdMap::kNone - 1;  // no place: the id is looked for, and not found so far

}  // namespace

void IdIndex::settle(const Snapshot& s) {
    if (ascending_known_) return;
    bool up = lists_ == 1;
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
    last_ = last;
    ascending_known_ = true;
    read_ = read_ || ascending_;
}

void IdIndex::prepare(const Snapshot& s) {
    settle(s);
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
    mapped_ = read_ = true;
}

bool IdIndex::reads_all(const Snapshot& s, int64_t n) const {
    return read_ && !ascending_ && !mapped_ && n * kReadPerId >= s.live;
}

void IdIndex::prepare(const Snapshot& s, const int64_t* ids, int64_t n) {
    settle(s);
    if (reads_all(s, n))
        look_through(s, ids, n);
    else
        prepare(s);
}

void IdIndex::forget_asked() {
    if (!mapped_) map_.clear();
}

bool IdIndex::find_ascending(const List& list, int64_t id, RowPlace* place) const {
    const auto& pieces = list.pieces;
    auto after = std::upper_bound(pieces.begin(), pieces.end(), id,
                                  [](int64_t v, const Piece& p) { return p.n == 0 || v < p.id(0); });
    if (after == pieces.begin()) return false;
    const Piece& p = *std::prev(after);
    int64_t at;
    if (!p.chunk->ids) {
        at = id - p.chunk->first_id;
    } else {
        at = p.chunk->ids.lower_bound(0, p.n, id);
    }
    if (at < 0 || at >= p.n || p.id(at) != id || !p.is_live(at)) return false;
    *place = {0, std::prev(after) - pieces.begin(), at};
    return true;
}

bool IdIndex::find(const Snapshot& s, int64_t id, RowPlace* place) const {
    if (ascending_) return find_ascending(*s.lists[0], id, place);
    const uint64_t found = map_.find(id);
    if (found >= kAsked) return false;
    const ChunkPlace& chunk = places_[found >> kPlaceBits];
    *place = {chunk.list, chunk.piece, static_cast<int64_t>(found & ((uint64_t{1} << kPlaceBits) - 1))};
    return true;
}

void IdIndex::fetch(int64_t id) const {
    if (!ascending_) map_.fetch(id);
}

std::vector<int64_t> IdIndex::present(const Snapshot& s, const int64_t* ids, int64_t n) {
    std::vector<int64_t> there;
    const bool after = ascending_known_ && ascending_ && *std::min_element(ids, ids + n) > last_;
    if (after) return there;
    std::vector<uint8_t> is_there(n);
    contains(s, ids, n, is_there.data());
    for (int64_t i = 0; i < n && there.size() < 5; i++)
        if (is_there[i]) there.push_back(ids[i]);
    return there;
}

void IdIndex::contains(const Snapshot& s, const int64_t* ids, int64_t n, uint8_t* out) {
    prepare(s, ids, n);
    RowPlace place;
    for (int64_t i = 0; i < n; i++) out[i] = find(s, ids[i], &place);
    forget_asked();
}

void IdIndex::look_through(const Snapshot& s, const int64_t* ids, int64_t n) {
    map_.clear();
    map_.reserve(n);
    // Most ids are passed over by one bit, of sixteen and more for each that is asked for.
    int bits = 10;
    while (int64_t{1} << bits < 16 * n) bits++;
    Bits maybe((int64_t{1} << bits) / 64, 0);
    const auto bit_of = [&](int64_t id) { return IdMap::hash(id, bits); };
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0) continue;
        map_.insert(ids[i], kAsked);
        maybe[bit_of(ids[i]) / 64] |= uint64_t{1} << (bit_of(ids[i]) % 64);
    }
    for (const auto& list : s.lists)
        for (const Piece& piece : list->pieces) {
            const uint64_t serial = piece.chunk->serial;
            for (int64_t r = 0; r < piece.n; r++) {
                const int64_t id = piece.id(r);
                if (!(maybe[bit_of(id) / 64] >> (bit_of(id) % 64) & 1)) continue;
                if (map_.find(id) != IdMap::kNone && piece.is_live(r))
                    map_.set(id, serial << kPlaceBits | static_cast<uint64_t>(r));
            }
        }
}

uint32_t IdIndex::next_serial() {
    if (!free_serials_.empty()) {
        const uint32_t serial = free_serials_.back();
        free_serials_.pop_back();
        return serial;
    }
    places_.push_back({});
    return static_cast<uint32_t>(places_.size() - 1);
}

void IdIndex::give_back(const std::vector<uint32_t>& serials) {
    free_serials_.insert(free_serials_.end(), serials.begin(), serials.end());
}

void IdIndex::place(int32_t number, const List& list) {
    for (size_t p = 0; p < list.pieces.size(); p++)
        places_[list.pieces[p].chunk->serial] = {number, static_cast<int64_t>(p)};
}

void IdIndex::reserve(int64_t ids) {
    if (mapped_) map_.reserve(ids);
}

void IdIndex::erase(const int64_t* ids, int64_t n) {
    for (int64_t i = 0; mapped_ && i < n; i++) map_.erase(ids[i]);
}

void IdIndex::add(const List& list, size_t piece, int64_t row) {
    for (size_t p = piece; mapped_ && p < list.pieces.size(); p++, row = 0) {
        const uint64_t serial = list.pieces[p].chunk->serial;
        for (int64_t r = row; r < list.pieces[p].n; r++)
            if (list.pieces[p].is_live(r))
                map_.set(list.pieces[p].id(r), serial << kPlaceBits | static_cast<uint64_t>(r));
    }
}

void IdIndex::forget(bool distinct) {
    mapped_ = ascending_known_ = false;
    read_ = distinct;
}

void IdIndex::forget_map() {
    mapped_ = false;
    map_.clear();
}

IdIndex::Order IdIndex::order_with(const int64_t* ids, int64_t n) const {
    Order order{ascending_, last_};
    for (int64_t i = 0; i < n && order.ascending; i++) {
        order.ascending = ids[i] > order.last;
        order.last = ids[i];
    }
    return order;
}

void IdIndex::set_order(Order order) {
    ascending_ = order.ascending;
    last_ = order.last;
}

std::string listed(const std::vector<int64_t>& ids) {
    std::string text = "[";
    for (size_t i = 0; i < ids.size(); i++) text += (i ? ", " : "") + std::to_string(ids[i]);
    return text + "]";
}

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

}  // namespace annvq
