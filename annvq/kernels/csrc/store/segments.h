// What a search reads: the segments of a snapshot's lists, less what is removed or filtered out.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "scan/query.h"
#include "store/store.h"

namespace annvq {

struct SegmentList {
    std::vector<Segment> segments;
    std::vector<std::shared_ptr<void>> memory;  // of masks and copies
    int64_t blocks = 0;
};

// Ids ascending, each once.
std::vector<int64_t> sorted_set(const int64_t* ids, int64_t n);

// What a filter leaves of a snapshot, and the snapshot, in whose memory the segments lie.
struct Resolved {
    std::shared_ptr<const Snapshot> snapshot;
    std::vector<SegmentList> lists;
};

// Segments of the lists that `asked` queries each will scan (0: left empty). With a filter, masks; or, where
// that costs less, copies of the few rows allowed. copy_cost: what copying a row costs, in scans of it. The
// segments may refer to the filter's bitmap.
std::vector<SegmentList> segments_of(const Snapshot& s, const CodeStore& store,
                                     const std::vector<int64_t>& asked, const Allowed& allowed,
                                     const NamedRows* named, double copy_cost, int threads);

}  // namespace annvq
