// Where the rows of ids are: found by bisection while ids ascend, else in a hash map that is made when first
// needed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/id_map.h"
#include "store/snapshot.h"

namespace annvq {

struct RowPlace {
    int32_t list = -1;
    int64_t piece = 0, row = 0;
};

// For one thread at a time, which also tells it of every change. find() looks into the snapshot that
// prepare() saw.
class IdIndex {
  public:
    explicit IdIndex(int32_t lists) : lists_(lists), ascending_(lists == 1) {}

    // Finds out whether ids ascend, where that is not known.
    void settle(const Snapshot& s);
    // Makes find() work: decides whether ids ascend, else builds the map. std::invalid_argument on ids that
    // repeat or are negative.
    void prepare(const Snapshot& s);
    // The same for these ids alone, and until forget_asked(). Where they are many beside those that are
    // stored, the ids of all rows are read for them, and no map of all is made, which would stay.
    void prepare(const Snapshot& s, const int64_t* ids, int64_t n);
    void forget_asked();
    // False where the id is not there.
    bool find(const Snapshot& s, int64_t id, RowPlace* place) const;
    void fetch(int64_t id) const;  // what find() will look at first, into the cache
    // Which ids are there, (n,). Where they are many beside those that are stored, no map is made for it.
    void contains(const Snapshot& s, const int64_t* ids, int64_t n, uint8_t* out);
    // Up to five of the ids that are there.
    std::vector<int64_t> present(const Snapshot& s, const int64_t* ids, int64_t n);
    bool ascending() const { return ascending_; }
    // False: rows were taken over unread, and ids are not known to differ from one another.
    bool is_read() const { return read_; }
    int64_t bytes() const {
        return map_.bytes() + (lists_ > 1 ? static_cast<int64_t>(places_.capacity() * sizeof(ChunkPlace) +
                                                                 free_serials_.capacity() * sizeof(uint32_t))
                                          : 0);
    }

    // A new chunk's serial, and what is given back by chunks that no list has any more.
    uint32_t next_serial();
    void give_back(const std::vector<uint32_t>& serials);
    // Chunks of a changed list are where they are from now on.
    void place(int32_t number, const List& list);
    // Where there is a map: makes room in it, takes out ids, or puts in the live rows of a list from a row of
    // a piece on.
    void reserve(int64_t ids);
    void erase(const int64_t* ids, int64_t n);
    void add(const List& list, size_t piece, int64_t row);
    // Rows were taken over; `distinct`: their ids are known to differ from one another.
    void forget(bool distinct);
    void forget_map();

    // Whether ids ascend, and the last of them.
    struct Order {
        bool ascending;
        int64_t last;
    };
    Order order_with(const int64_t* ids, int64_t n) const;
    void set_order(Order order);

  private:
    // Whether so many ids are found by reading those of all rows.
    bool reads_all(const Snapshot& s, int64_t n) const;
    // The places of these ids into the map, which has them alone until forget_asked().
    void look_through(const Snapshot& s, const int64_t* ids, int64_t n);
    bool find_ascending(const List& list, int64_t id, RowPlace* place) const;

    struct ChunkPlace {
        int32_t list = -1;
        int64_t piece = 0;
    };
    int32_t lists_;
    std::vector<ChunkPlace> places_;  // by chunk serial
    std::vector<uint32_t> free_serials_;
    IdMap map_;  // id -> chunk serial, row; of all ids while mapped_
    bool mapped_ = false;
    bool ascending_;  // one list, ids in ascending order: no map
    bool ascending_known_ = true;
    bool read_ = true;
    int64_t last_ = -1;
};

// "[1, 2]"
std::string listed(const std::vector<int64_t>& ids);
[[noreturn]] void refuse(const std::string& message);

}  // namespace annvq
