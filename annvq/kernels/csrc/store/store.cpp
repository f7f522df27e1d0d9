#include "store/store.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "store/draft.h"

namespace annvq {
namespace {

// Up to five of the ids that occur more than once.
std::vector<int64_t> repeated(const int64_t* ids, int64_t n) {
    if (std::adjacent_find(ids, ids + n, std::greater_equal<int64_t>()) == ids + n) return {};
    std::vector<int64_t> sorted(ids, ids + n), out;
    std::sort(sorted.begin(), sorted.end());
    for (int64_t i = 1; i < n && out.size() < 5; i++)
        if (sorted[i] == sorted[i - 1] && (out.empty() || out.back() != sorted[i])) out.push_back(sorted[i]);
    return out;
}

// While it lives, ids are found; n = 0: none is looked for.
class Asked {
  public:
    Asked(IdIndex& ids, const Snapshot& s, const int64_t* asked, int64_t n) : ids_(ids) {
        if (n) ids_.prepare(s, asked, n);
    }
    ~Asked() { ids_.forget_asked(); }
    Asked(const Asked&) = delete;
    Asked& operator=(const Asked&) = delete;

  private:
    IdIndex& ids_;
};

}  // namespace

CodeStore::CodeStore(StoreShape shape, const uint8_t* relabel)
    : format_(std::move(shape), relabel), ids_(format_.shape().lists) {
    auto first = std::make_shared<Snapshot>();
    first->lists.assign(format_.shape().lists, std::make_shared<List>());
    current_ = first;
}

std::shared_ptr<const Snapshot> CodeStore::snapshot() const {
    std::lock_guard<Mutex> lock(publishing_);
    return current_;
}

void CodeStore::publish(Draft& draft) {
    std::shared_ptr<const Snapshot> old = draft.finish();  // freed after the lock
    {
        std::lock_guard<Mutex> lock(publishing_);
        old.swap(current_);
    }
    draft.done();
}

// Lists that have grown or shrunk leave gaps behind.
void CodeStore::close_gaps() {
    if (!format_.close_sparse()) return;
    Draft draft(*current_, format_, ids_);
    draft.leave_closed();
    publish(draft);
    format_.settle();
}

int64_t CodeStore::append(const Rows& rows, Fresh fresh) {
    if (rows.n == 0) return 0;
    std::lock_guard<Mutex> lock(writing_);
    ids_.settle(*current_);
    if (fresh == Fresh::known && !ids_.is_read()) fresh = Fresh::checked;  // nobody can know what is in a map
    if (fresh != Fresh::known) {
        const auto twice = repeated(rows.ids, rows.n);
        if (!twice.empty()) refuse("ids must differ from one another; repeated: " + listed(twice));
    }
    if (fresh == Fresh::checked) {
        const auto there = ids_.present(*current_, rows.ids, rows.n);
        if (!there.empty()) refuse("ids must be new and differ from one another; repeated: " + listed(there));
    }
    const Asked asked(ids_, *current_, rows.ids, fresh == Fresh::replaces ? rows.n : 0);

    Draft draft(*current_, format_, ids_);
    const int64_t replaced = fresh == Fresh::replaces ? draft.kill(rows.ids, rows.n) : 0;
    draft.rewrite_edited();
    // Ids that go back end the ascending order; places are then kept in the map.
    const IdIndex::Order order = ids_.order_with(rows.ids, rows.n);
    draft.append(rows);
    publish(draft);
    ids_.set_order(order);
    close_gaps();
    return replaced;
}

void CodeStore::remove(const int64_t* ids, int64_t n) {
    if (n == 0) return;
    std::lock_guard<Mutex> lock(writing_);
    const auto twice = repeated(ids, n);
    if (!twice.empty()) refuse("ids must differ from one another; repeated: " + listed(twice));
    const Asked asked(ids_, *current_, ids, n);
    std::vector<int64_t> missing;
    RowPlace at;
    for (int64_t i = 0; i < n && missing.size() < 5; i++)
        if (!ids_.find(*current_, ids[i], &at)) missing.push_back(ids[i]);
    if (!missing.empty()) refuse("ids must be stored in the index; not there: " + listed(missing));
    Draft draft(*current_, format_, ids_);
    draft.kill(ids, n);
    ids_.erase(ids, n);
    draft.rewrite_edited();
    publish(draft);
    close_gaps();
}

void CodeStore::contains(const int64_t* ids, int64_t n, uint8_t* out) {
    std::lock_guard<Mutex> lock(writing_);
    if (n) ids_.contains(*current_, ids, n, out);
}

void CodeStore::rows(const int64_t* ids, int64_t n, void* codes, uint8_t* bytes, float* norms,
                     int32_t* lists) {
    if (n == 0) return;
    std::lock_guard<Mutex> lock(writing_);
    ids_.prepare(*current_);
    // Ids at random: what the next rows need is fetched while those before are read.
    constexpr int64_t at_once = 32;
    const Chunk* chunks[at_once];
    RowPlace places[at_once];
    std::vector<int64_t> missing;
    for (int64_t from = 0; from < n && missing.size() < 5; from += at_once) {
        const int64_t count = std::min(at_once, n - from);
        for (int64_t i = 0; i < count; i++) ids_.fetch(ids[from + i]);
        for (int64_t i = 0; i < count; i++) {
            RowPlace& at = places[i];
            chunks[i] = nullptr;
            if (!ids_.find(*current_, ids[from + i], &at)) {
                missing.push_back(ids[from + i]);
                continue;
            }
            lists[from + i] = at.list;
            chunks[i] = current_->lists[at.list]->pieces[at.piece].chunk.get();
            format_.fetch(*chunks[i], at.row);
        }
        for (int64_t i = 0; i < count; i++)
            if (const int64_t to = from + i; chunks[i])
                format_.read(*chunks[i], places[i].row,
                             static_cast<uint8_t*>(codes) + to * format_.row_bytes(),
                             bytes ? bytes + to : nullptr, norms ? norms + to : nullptr);
    }
    if (missing.size() > 5) missing.resize(5);
    if (!missing.empty()) refuse("ids must be stored in the index; not there: " + listed(missing));
}

void CodeStore::adopt(const uint8_t* codes, const int64_t* ids, int64_t first_id, const int64_t* sizes,
                      const std::shared_ptr<void>& owner) {
    std::lock_guard<Mutex> lock(writing_);
    Draft draft(*current_, format_, ids_);
    for (int32_t l = 0; l < shape().lists; l++) {
        const int64_t n = sizes[l];
        if (n) draft.adopt(l, codes, ids, first_id, n, owner);
        codes += n * layout().columns();
        first_id += n;
        if (ids) ids += n;
    }
    ids_.forget(!owner);  // what is copied has been read
    publish(draft);
}

int64_t CodeStore::code_bytes() const {
    constexpr int64_t shared = 48;  // of what is shared, beside itself: counts, and what the allocator adds
    int64_t bytes = format_.spare_bytes()[0];
    const auto s = snapshot();
    for (const auto& list : s->lists) {
        if (list->pieces.empty()) continue;
        bytes += shared + sizeof(List);
        for (const Piece& piece : list->pieces) {
            bytes += format_.bytes_of(*piece.chunk) + sizeof(Piece) + sizeof(Chunk) + shared;
            if (piece.live) bytes += static_cast<int64_t>(piece.live->size()) * 8 + shared;
        }
    }
    return bytes;
}

int64_t CodeStore::id_bytes() {
    std::lock_guard<Mutex> lock(writing_);
    int64_t bytes = ids_.bytes() + format_.spare_bytes()[1];
    const auto s = snapshot();
    for (const auto& list : s->lists)
        for (const Piece& piece : list->pieces)
            if (const Ids& ids = piece.chunk->ids) bytes += piece.chunk->capacity * ids.bytes();
    return bytes;
}

}  // namespace annvq
