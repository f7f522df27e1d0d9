// How codes of up to 8 bits lie in memory: superblocks of 512 vectors, [superblock][column][512] bytes.
//
// A column is one codebook, or two of at most 16 entries (nibbles: the even codebook in the low four bits).
// With norms of either kind one more column holds a byte of the norm. Rows past the last vector are zero.
//
// Stored bytes are relabelled so that near entries share their low bits: a table of minima over entries with
// the same low 7, 6, ... bits is then a close lower bound at a fraction of the cost. For codes the owner may
// give the labels; norm bytes, whose levels ascend, have their low bits moved to the top.
#pragma once
#include <cstdint>
#include <vector>

namespace annvq {

constexpr int64_t kSuperblock = 512;

enum class NormKind { none, levels, floats };

inline int64_t superblocks(int64_t n) { return (n + kSuperblock - 1) / kSuperblock; }

class Layout {
  public:
    // relabel: (M, 256) permutations, or nullptr. Codebooks of nibbles have at most 16 entries and no
    // relabelling (std::invalid_argument).
    Layout(int32_t M, NormKind norm, bool nibbles = false, const uint8_t* relabel = nullptr);

    int32_t M() const { return M_; }
    NormKind norm() const { return norm_; }
    bool nibbles() const { return nibbles_; }
    int code_columns() const { return nibbles_ ? (M_ + 1) / 2 : M_; }
    int columns() const { return code_columns() + (norm_ != NormKind::none); }
    // What stored byte b of a column stands for, (256,); nullptr where it is b itself.
    const uint8_t* meaning(int column) const {
        if (column == code_columns()) return norm_meaning();
        return meaning_.empty() ? nullptr : meaning_.data() + column * 256;
    }

    // Rows [at, at + n) of the superblocks at out from codes (n, M) and norm bytes (n,) (nullptr without
    // norms).
    void pack(const uint8_t* codes, const uint8_t* norms, int64_t n, int64_t at, uint8_t* out) const;
    // One row back: codes (M,) and, where there is one and norm is not nullptr, its norm byte.
    void unpack(const uint8_t* blocks, int64_t row, uint8_t* codes, uint8_t* norm) const;

  private:
    static const uint8_t* norm_meaning();

    int32_t M_;
    NormKind norm_;
    bool nibbles_;
    std::vector<uint8_t> relabel_, meaning_;  // (M, 256), or empty
};

}  // namespace annvq
