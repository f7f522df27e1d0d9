// Floats on a 64-byte boundary, as scratch memory: they are not set to anything.
#pragma once
#include <algorithm>
#include <cstdint>
#include <new>

namespace annvq {

struct AlignedFloats {
    explicit AlignedFloats(int64_t count)
        : data(static_cast<float*>(
              ::operator new(std::max<int64_t>(count, 1) * sizeof(float), std::align_val_t{64}))) {}
    ~AlignedFloats() { ::operator delete(data, std::align_val_t{64}); }
    AlignedFloats(const AlignedFloats&) = delete;
    AlignedFloats& operator=(const AlignedFloats&) = delete;
    float* data;
};

}  // namespace annvq
