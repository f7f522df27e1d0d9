// What a query scans: vectors that lie together.
#pragma once
#include <cstdint>

#include "common/ids.h"

namespace annvq {

// Vectors that lie together, by one Layout. Codes must be below the tables' K. Those of a segment shorter
// than a superblock may begin within one: what lies past its rows belongs to others.
struct Segment {
    const uint8_t* codes;  // superblocks(n) superblocks
    int64_t n;
    Ids ids;  // (n,), or none: first_id + row
    int64_t first_id = 0;
    const uint64_t* live = nullptr;  // 8 words a superblock: bit set = may be returned; nullptr: all n rows
    bool sparse = false;             // so few are live that whole superblocks hold next to none
    // Unless nullptr, an id may be returned where it is below allowed_size and allowed[id] is not 0.
    const uint8_t* allowed = nullptr;
    int64_t allowed_size = 0;
    // Float norms (n,): the norm column then holds bytes b with norm_low + norm_step * b <= norms_f32[i].
    const float* norms_f32 = nullptr;
    float norm_low = 0, norm_step = 0;
};

}  // namespace annvq
