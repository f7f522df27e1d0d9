// Ids of rows side by side, in eight bytes each, or in four where all of them fit.
#pragma once
#include <cstdint>

namespace annvq {

struct Ids {
    const void* data = nullptr;
    bool narrow = false;

    Ids() = default;
    Ids(const int64_t* ids) : data(ids) {}
    Ids(const uint32_t* ids) : data(ids), narrow(true) {}

    explicit operator bool() const { return data != nullptr; }
    int64_t operator[](int64_t row) const {
        return narrow ? int64_t{static_cast<const uint32_t*>(data)[row]}
                      : static_cast<const int64_t*>(data)[row];
    }
    // From a row on.
    Ids operator+(int64_t row) const {
        Ids from = *this;
        from.data = static_cast<const char*>(data) + row * bytes();
        return from;
    }
    int64_t bytes() const { return narrow ? 4 : 8; }  // of an id

    // The first row in [row, end) whose id is not below this one, of ids that ascend; end where there is
    // none.
    int64_t lower_bound(int64_t row, int64_t end, int64_t id) const {
        while (row < end) {
            const int64_t middle = row + (end - row) / 2;
            if ((*this)[middle] < id)
                row = middle + 1;
            else
                end = middle;
        }
        return row;
    }
};

inline bool fits_narrow(int64_t id) { return id >= 0 && id <= int64_t{UINT32_MAX}; }

}  // namespace annvq
