// Who scans what: queries in groups that share passes, threads over groups or over parts of one query's work.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "common/parallel.h"
#include "scan/refusals.h"
#include "scan/wide_query.h"
#include "store/segments.h"

namespace annvq {
namespace {

// Floats of the tables of queries that are worked on together, so that these stay in the second cache; and
// how many queries at least, and at most where they probe lists, which are put together.
constexpr int64_t kTables = 1 << 18, kFewest = 16, kMostProbing = 256;

// A query's visit to a list.
struct Visit {
    int32_t list;
    int32_t query;  // within its group
    float bias;
};

// Lists ascending, visits to one in their order: by one digit after the other, the lowest first.
void sort_by_list(std::vector<Visit>* visits, int32_t lists) {
    constexpr int bits = 11;
    std::vector<Visit> sorted(visits->size());
    for (int shift = 0; shift < 31 && (lists - 1) >> shift; shift += bits) {
        const auto digit = [=](const Visit& v) { return v.list >> shift & ((1 << bits) - 1); };
        uint32_t starts[(1 << bits) + 1] = {};
        for (const Visit& v : *visits) starts[digit(v) + 1]++;
        for (int d = 1; d < 1 << bits; d++) starts[d] += starts[d - 1];
        for (const Visit& v : *visits) sorted[starts[digit(v)]++] = v;
        visits->swap(sorted);
    }
}

template <class Q>
class Search {
  public:
    Search(const CodeStore& store, const SearchArguments& a, const std::vector<SegmentList>& lists)
        : store_(store), a_(a), lists_(lists), unbuilt_(a.unbuilt), luts_(a.luts) {
        if (!luts_) reorder();
    }

    void run(float* distances, int64_t* found) {
        const int64_t most =
            std::clamp<int64_t>(kTables / table_size(), kFewest, a_.probes ? kMostProbing : kGroup);
        share_ = std::clamp<int64_t>((a_.nq + a_.threads - 1) / a_.threads, 1, most);
        const int64_t groups = (a_.nq + share_ - 1) / share_;
        parts_ = groups
                     ? std::clamp<int64_t>(a_.threads / groups, 1, std::max<int64_t>(1, work() / kPartBytes))
                     : 1;
        std::vector<float> built;
        if (parts_ > 1 && !a_.luts) {  // each part would build them again
            built.resize(a_.nq * table_size());
            unbuilt_.build(unbuilt_.queries, a_.nq, built.data(), a_.threads);
            luts_ = built.data();
        }
        if (parts_ > 1) limits_ = std::vector<std::atomic<float>>(a_.nq);
        for (auto& limit : limits_) limit = std::numeric_limits<float>::infinity();
        std::vector<Group> done(groups * parts_);
        parallel_for(groups * parts_, a_.threads, [&](int64_t task) {
            Group& group = done[task];
            scan_group(task / parts_, task % parts_, &group);
            if (parts_ > 1) return;
            write(task, &group, distances, found);
            group = Group{};
        });
        if (parts_ == 1) return;
        for (int64_t g = 0; g < groups; g++) {
            Group& whole = done[g * parts_];
            for (int64_t p = 1; p < parts_; p++)
                for (size_t q = 0; q < whole.size(); q++) whole[q].merge(std::move(done[g * parts_ + p][q]));
            write(g, &whole, distances, found);
        }
    }

  private:
    using Group = std::vector<Q>;

    // Where codes are relabelled, tables to be built are built in the order of the labels.
    void reorder() {
        const Layout& layout = store_.layout();
        const uint8_t* order = store_.shape().wide ? nullptr : layout.meaning(0);
        if (!order || !(reordered_ = unbuilt_.builder->reordered(order))) return;
        unbuilt_.builder = reordered_.get();
        if (!unbuilt_.offsets) return;
        offsets_.resize(256 * layout.M());
        for (size_t i = 0; i < offsets_.size(); i++) offsets_[i] = unbuilt_.offsets[i / 256 * 256 + order[i]];
        unbuilt_.offsets = offsets_.data();
    }

    // Bytes of codes that one query scans, about.
    int64_t work() const {
        int64_t blocks = 0;
        if (!a_.probes)
            for (const SegmentList& list : lists_) blocks += list.blocks;
        else
            for (int64_t p = 0; p < a_.P; p++)
                if (a_.probes[p] >= 0) blocks += lists_[a_.probes[p]].blocks;
        const int64_t bytes = store_.shape().wide ? 2 : 1;
        return blocks * store_.layout().columns() * kSuperblock * bytes;
    }

    // Floats of a query's tables.
    int64_t table_size() const { return store_.shape().M * a_.K; }

    Q make(const float* luts) const {
        const int32_t M = store_.shape().M;
        if constexpr (std::is_same_v<Q, Query>)
            return Query(QueryTables{store_.layout(), luts, a_.K, a_.norm_levels, reordered_ != nullptr},
                         scan_kernels(), a_.k);
        else
            return WideQuery(WideTables{luts, M, a_.K, a_.norm_levels}, a_.k);
    }

    // The query in a place of the order that they are worked on in.
    int64_t row_at(int64_t place) const { return a_.order ? a_.order[place] : place; }

    // Tables of a group, in memory that the thread's next group uses again: so they stay in the second cache.
    const float* build(int64_t first, int64_t count) const {
        static thread_local std::vector<float> memory, gathered;
        memory.resize(std::max<size_t>(memory.size(), count * table_size()));
        const float* queries = unbuilt_.queries + first * unbuilt_.dim;
        if (a_.order) {
            gathered.resize(count * unbuilt_.dim);
            for (int64_t i = 0; i < count; i++)
                std::copy_n(unbuilt_.queries + row_at(first + i) * unbuilt_.dim, unbuilt_.dim,
                            gathered.data() + i * unbuilt_.dim);
            queries = gathered.data();
        }
        unbuilt_.build(queries, count, memory.data(), 1);
        return memory.data();
    }

    void scan_group(int64_t g, int64_t part, Group* group) const {
        const int64_t first = g * share_, last = std::min(a_.nq, first + share_);
        const float* built = luts_ ? nullptr : build(first, last - first);
        group->reserve(last - first);
        std::vector<Q*> queries;
        for (int64_t place = first; place < last; place++) {
            const int64_t row = row_at(place);
            group->push_back(
                make(built ? built + (place - first) * table_size() : luts_ + row * table_size()));
            queries.push_back(&group->back());
            if (parts_ > 1) group->back().share(&limits_[row]);
            // The nearest list at once, while the tables are close: it holds most of what is near, and a low
            // k-th best makes the rest cheap.
            if (a_.probes) scan_first(row, part, queries.back());
        }
        if (a_.probes)
            scan_rest(first, part, queries);
        else
            scan_all(first, part, queries);
    }

    void scan_all(int64_t first, int64_t part, const std::vector<Q*>& queries) const {
        int64_t total = 0, at = 0;
        for (const SegmentList& list : lists_) total += list.blocks;
        const int64_t begin = total * part / parts_, end = total * (part + 1) / parts_;
        for (const SegmentList& list : lists_)
            for (const Segment& segment : list.segments) {
                const int64_t blocks = superblocks(segment.n);
                const int64_t from = std::max(begin - at, int64_t{0}), to = std::min(end - at, blocks);
                if (from < to)
                    scan_together(queries.data(), a_.bias + first, static_cast<int64_t>(queries.size()),
                                  segment, from, to);
                at += blocks;
            }
    }

    // The list of a query's p-th probe, or nullptr where there is nothing to scan.
    const SegmentList* list_of(int64_t row, int64_t p) const {
        const int32_t list = p < a_.P ? a_.probes[row * a_.P + p] : -1;
        return list < 0 || lists_[list].segments.empty() ? nullptr : &lists_[list];
    }

    float bias_of(int64_t row, int64_t p) const {
        return a_.probe_bias ? a_.probe_bias[row * a_.P + p] : a_.bias[row];
    }

    // Parts of a query's work are every parts_-th of its probes.
    void scan_first(int64_t row, int64_t part, Q* query) const {
        const SegmentList* list = list_of(row, part);
        if (!list) return;
        const float bias = bias_of(row, part);
        for (const Segment& segment : list->segments) query->scan(segment, bias, 0, superblocks(segment.n));
    }

    // The other probes of all queries, list by list.
    void scan_rest(int64_t first, int64_t part, const std::vector<Q*>& queries) const {
        std::vector<Visit> visits;
        visits.reserve(queries.size() * a_.P / parts_);
        for (size_t q = 0; q < queries.size(); q++) {
            const int64_t row = row_at(first + static_cast<int64_t>(q));
            float least = std::numeric_limits<float>::infinity();
            for (int64_t p = part + parts_; p < a_.P; p += parts_) {
                if (!list_of(row, p)) continue;
                visits.push_back({a_.probes[row * a_.P + p], static_cast<int32_t>(q), bias_of(row, p)});
                least = std::min(least, visits.back().bias);
            }
            queries[q]->expect(least);
        }
        sort_by_list(&visits, static_cast<int32_t>(lists_.size()));
        std::vector<Q*> together;
        std::vector<float> biases;
        for (size_t i = 0, next; i < visits.size(); i = next) {
            together.clear(), biases.clear();
            for (next = i; next < visits.size() && visits[next].list == visits[i].list; next++) {
                together.push_back(queries[visits[next].query]);
                biases.push_back(visits[next].bias);
            }
            for (const Segment& segment : lists_[visits[i].list].segments)
                scan_together(together.data(), biases.data(), static_cast<int64_t>(together.size()), segment,
                              0, superblocks(segment.n));
        }
    }

    void write(int64_t g, Group* group, float* distances, int64_t* found) const {
        for (Q& query : *group) query.finish();
        for (size_t q = 0; q < group->size(); q++) {
            const int64_t row = row_at(g * share_ + static_cast<int64_t>(q));
            (*group)[q].write(distances + row * a_.k, found + row * a_.k);
        }
    }

    const CodeStore& store_;
    const SearchArguments& a_;
    const std::vector<SegmentList>& lists_;
    UnbuiltTables unbuilt_;
    std::shared_ptr<const TableBuilder> reordered_;
    std::vector<float> offsets_;
    const float* luts_;  // of all queries, or nullptr: each group builds its own
    int64_t share_ = 1, parts_ = 1;
    mutable std::vector<std::atomic<float>> limits_;  // of all queries, where their work is shared out
};

void require_finite_biases(const float* bias, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(bias[i] > -std::numeric_limits<float>::infinity())) throw std::invalid_argument(kBiasRefused);
}

// Rows of a piece with ascending ids that [from, end) names; where the ids beyond the piece's begin.
const int64_t* name_ascending(const Piece& piece, const int64_t* from, const int64_t* end,
                              std::vector<int64_t>* rows) {
    if (!piece.n) return from;
    from = std::lower_bound(from, end, piece.id(0));
    const int64_t* beyond = std::upper_bound(from, end, piece.id(piece.n - 1));
    rows->reserve(beyond - from);
    const Ids ids = piece.chunk->ids;
    for (int64_t row = 0; from < beyond; from++) {
        row = ids ? ids.lower_bound(row, piece.n, *from) : *from - piece.chunk->first_id;
        if (piece.id(row) == *from && piece.is_live(row)) rows->push_back(row);
    }
    return beyond;
}

// How many queries scan each list. std::invalid_argument on lists that do not exist or come twice.
std::vector<int64_t> asked_of(const SearchArguments& a, int32_t lists) {
    std::vector<int64_t> asked(lists, a.probes ? 0 : a.nq), last(a.probes ? lists : 0, -1);
    for (int64_t q = 0; a.probes && q < a.nq; q++)
        for (int64_t p = 0; p < a.P; p++) {
            const int32_t list = a.probes[q * a.P + p];
            if (list < -1 || list >= lists) throw std::invalid_argument("probes must lie in -1..lists-1");
            if (list < 0) continue;
            if (last[list] == q)
                throw std::invalid_argument("probes of a query must differ from one another");
            last[list] = q;
            asked[list]++;
        }
    return asked;
}

}  // namespace

// Rows that an allow-list names, in the snapshot that is current now.
std::shared_ptr<const Snapshot> CodeStore::name_rows(const Allowed& allowed, NamedRows* named) {
    std::lock_guard<Mutex> lock(writing_);
    ids_.prepare(*current_);
    const auto s = current_;
    named->resize(s->lists.size());
    for (size_t l = 0; l < s->lists.size(); l++) (*named)[l].resize(s->lists[l]->pieces.size());
    if (ids_.ascending()) {  // two ascending sequences: no id is looked up by itself
        const int64_t *from = allowed.ids, *end = allowed.ids + allowed.count;
        for (size_t p = 0; p < s->lists[0]->pieces.size(); p++)
            from = name_ascending(s->lists[0]->pieces[p], from, end, &(*named)[0][p]);
        return s;
    }
    RowPlace at;
    for (int64_t i = 0; i < allowed.count; i++)
        if (ids_.find(*s, allowed.ids[i], &at)) (*named)[at.list][at.piece].push_back(at.row);
    return s;
}

// What a filter leaves of the snapshot that is current now.
std::shared_ptr<const Resolved> CodeStore::resolve(const Allowed& filter, const std::vector<int64_t>& asked,
                                                   int threads) {
    auto s = snapshot();
    Allowed allowed = filter;
    std::shared_ptr<std::vector<uint8_t>> bitmap;
    NamedRows named;
    if (allowed.ids) {
        const int64_t* from = std::lower_bound(allowed.ids, allowed.ids + allowed.count, 0);  // none is below
        allowed = Allowed{nullptr, 0, from, allowed.ids + allowed.count - from};
        const int64_t top = allowed.count ? allowed.ids[allowed.count - 1] : -1;
        if (64 * allowed.count > s->live && top < 8 * s->live + (1 << 20)) {
            // So many ids, and none too high: a bitmap is quicker than looking each up.
            bitmap = std::make_shared<std::vector<uint8_t>>(top + 1);
            for (int64_t i = 0; i < allowed.count; i++) (*bitmap)[allowed.ids[i]] = 1;
            allowed = Allowed{bitmap->data(), top + 1, nullptr, 0};
        } else {
            s = name_rows(allowed, &named);
        }
    }
    // A row costs about as much to copy as fifty do to filter; wide codes are scored row by row.
    const double copy_cost = shape().wide ? 1 : 50;
    auto lists = segments_of(*s, *this, asked, allowed, allowed.ids ? &named : nullptr, copy_cost, threads);
    for (SegmentList& list : lists)
        if (bitmap && std::any_of(list.segments.begin(), list.segments.end(),
                                  [&](const Segment& g) { return g.allowed == bitmap->data(); }))
            list.memory.push_back(bitmap);
    return std::make_shared<const Resolved>(Resolved{std::move(s), std::move(lists)});
}

Allowed PreparedFilter::allowed() const {
    static const int64_t none = 0;
    if (listed_) return {nullptr, 0, ids_.empty() ? &none : ids_.data(), static_cast<int64_t>(ids_.size())};
    const auto* bits = bitmap_.empty() ? reinterpret_cast<const uint8_t*>(&none) : bitmap_.data();
    return {bits, static_cast<int64_t>(bitmap_.size()), nullptr, 0};
}

// Rows are found in all lists, as for queries enough to make up for it. Whoever searches holds what is
// returned: another search may make the filter forget it.
std::shared_ptr<const Resolved> CodeStore::resolve(PreparedFilter& filter, int threads) {
    constexpr int64_t queries = 10;  // so rows are copied where at most a sixth are allowed
    std::lock_guard<Mutex> lock(filter.resolving_);
    if (!filter.found_ || filter.found_->snapshot != snapshot())
        filter.found_ = resolve(filter.allowed(), std::vector<int64_t>(shape().lists, queries), threads);
    return filter.found_;
}

void CodeStore::search(const SearchArguments& a, float* distances, int64_t* found) {
    require_finite_biases(a.bias, a.nq);
    if (a.probe_bias) require_finite_biases(a.probe_bias, a.nq * a.P);
    const std::vector<int64_t> asked = asked_of(a, shape().lists);
    const auto found_rows =
        a.prepared ? resolve(*a.prepared, a.threads) : resolve(a.allowed, asked, a.threads);
    if (shape().wide)
        Search<WideQuery>(*this, a, found_rows->lists).run(distances, found);
    else
        Search<Query>(*this, a, found_rows->lists).run(distances, found);
}

}  // namespace annvq
