// A hash map from ids (>= 0) to 64-bit places: open addressing with linear probing, erasure by shifting back.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/bits.h"

namespace annvq {

class IdMap {
  public:
    static constexpr uint64_t kNone = ~uint64_t{0};

    void clear() {
        std::vector<Slot>().swap(slots_);  // (an empty list assigned would keep the memory)
        size_ = 0;
    }
    int64_t bytes() const { return static_cast<int64_t>(slots_.capacity() * sizeof(Slot)); }

    // Makes room for n ids; after it, insertion up to n ids cannot fail.
    void reserve(int64_t n) {
        size_t wanted = 16;
        while (static_cast<int64_t>(wanted) * 2 / 3 < n) wanted *= 2;
        if (wanted > slots_.size()) grow(wanted);
    }

    // False, and nothing changes, where the id is there.
    bool insert(int64_t id, uint64_t place) {
        if (static_cast<int64_t>(slots_.size()) * 2 / 3 <= size_) reserve(size_ + 1);
        size_t at = home(id);
        for (; slots_[at].id >= 0; at = next(at))
            if (slots_[at].id == id) return false;
        slots_[at] = {id, place};
        size_++;
        return true;
    }

    void set(int64_t id, uint64_t place) {
        if (!insert(id, place)) slots_[find_slot(id)].place = place;
    }

    uint64_t find(int64_t id) const {
        const size_t at = find_slot(id);
        return at == slots_.size() ? kNone : slots_[at].place;
    }

    // Where an id is looked for first, of 2 ** bits places.
    static uint64_t hash(int64_t id, int bits) {
        return static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15u >> (64 - bits);
    }

    // Fetches what find(id) will look at first.
    void fetch(int64_t id) const {
        if (!slots_.empty()) __builtin_prefetch(&slots_[home(id)]);
    }

    void erase(int64_t id) {
        size_t hole = find_slot(id);
        if (hole == slots_.size()) return;
        for (size_t at = next(hole); slots_[at].id >= 0; at = next(at)) {
            // An entry may move into the hole unless its home lies after the hole on the way to it.
            const size_t from_home = (at - home(slots_[at].id)) & (slots_.size() - 1);
            if (from_home >= ((at - hole) & (slots_.size() - 1))) {
                slots_[hole] = slots_[at];
                hole = at;
            }
        }
        slots_[hole].id = -1;
        size_--;
    }

  private:
    struct Slot {
        int64_t id = -1;
        uint64_t place = 0;
    };

    size_t home(int64_t id) const { return static_cast<size_t>(hash(id, bits_)); }
    size_t next(size_t at) const { return (at + 1) & (slots_.size() - 1); }
    size_t find_slot(int64_t id) const {
        if (slots_.empty() || id < 0) return slots_.size();
        for (size_t at = home(id); slots_[at].id >= 0; at = next(at))
            if (slots_[at].id == id) return at;
        return slots_.size();
    }
    void grow(size_t wanted) {
        std::vector<Slot> old(wanted);
        old.swap(slots_);
        bits_ = lowest_bit(wanted);
        for (const Slot& s : old) {
            if (s.id < 0) continue;
            size_t at = home(s.id);
            while (slots_[at].id >= 0) at = next(at);
            slots_[at] = s;
        }
    }

    std::vector<Slot> slots_;
    int64_t size_ = 0;
    int bits_ = 4;
};

}  // namespace annvq
