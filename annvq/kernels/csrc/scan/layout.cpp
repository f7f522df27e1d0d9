#include "scan/layout.h"

#include <array>
#include <stdexcept>

namespace annvq {
namespace {

struct NormLabels {
    std::array<uint8_t, 256> stored, meaning;
};

// The four low bits, reversed, go on top: leaving out the top bit first leaves out the least of the levels'
// bits.
NormLabels make_norm_labels() {
    NormLabels t{};
    for (int b = 0; b < 256; b++) {
        const int label = b >> 4 | (b & 8) << 1 | (b & 4) << 3 | (b & 2) << 5 | (b & 1) << 7;
        t.stored[b] = static_cast<uint8_t>(label);
        t.meaning[label] = static_cast<uint8_t>(b);
    }
    return t;
}

const NormLabels kNormLabels = make_norm_labels();

}  // namespace

Layout::Layout(int32_t M, NormKind norm, bool nibbles, const uint8_t* relabel)
    : M_(M), norm_(norm), nibbles_(nibbles) {
    if (!relabel) return;
    if (nibbles) throw std::invalid_argument("codes of four bits cannot be relabelled");
    relabel_.assign(relabel, relabel + M * 256);
    meaning_.resize(M * 256);
    std::vector<bool> seen(M * 256);
    for (int i = 0; i < M * 256; i++) {
        const int label = i / 256 * 256 + relabel[i];
        if (seen[label]) throw std::invalid_argument("relabel must hold permutations of 0..255");
        seen[label] = true;
        meaning_[label] = static_cast<uint8_t>(i % 256);
    }
}

const uint8_t* Layout::norm_meaning() { return kNormLabels.meaning.data(); }

void Layout::pack(const uint8_t* codes, const uint8_t* norms, int64_t n, int64_t at, uint8_t* out) const {
    const int64_t stride = columns() * kSuperblock;
    for (int64_t i = 0; i < n; i++) {
        uint8_t* o = out + (at + i) / kSuperblock * stride + (at + i) % kSuperblock;
        const uint8_t* c = codes + i * M_;
        for (int m = 0; m < code_columns(); m++, o += kSuperblock) {
            if (nibbles_)
                *o = static_cast<uint8_t>(c[2 * m] | (2 * m + 1 < M_ ? c[2 * m + 1] << 4 : 0));
            else
                *o = relabel_.empty() ? c[m] : relabel_[m * 256 + c[m]];
        }
        if (norm_ != NormKind::none) *o = kNormLabels.stored[norms[i]];
    }
}

void Layout::unpack(const uint8_t* blocks, int64_t row, uint8_t* codes, uint8_t* norm) const {
    const uint8_t* b = blocks + row / kSuperblock * columns() * kSuperblock + row % kSuperblock;
    for (int m = 0; m < M_; m++) {
        if (nibbles_)
            codes[m] = b[m / 2 * kSuperblock] >> (m % 2 * 4) & 15;
        else
            codes[m] = meaning_.empty() ? b[m * kSuperblock] : meaning_[m * 256 + b[m * kSuperblock]];
    }
    if (norm && norm_ != NormKind::none) *norm = kNormLabels.meaning[b[code_columns() * kSuperblock]];
}

}  // namespace annvq
