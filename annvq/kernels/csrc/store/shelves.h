// Memory of chunks of fewer rows than a superblock: many share one, so that short lists take what they hold.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "scan/layout.h"

namespace annvq {

// Superblocks, each cut into steps of 16 rows, which chunks take side by side. Codes of a chunk lie as they
// do in a superblock of its own, but for where they begin: a column is 512 rows further on. Chunks come and
// go in any thread.
class Shelves : public std::enable_shared_from_this<Shelves> {
  public:
    static constexpr int64_t kStep = 16;

    // block_bytes: of the codes of a superblock, of `item` bytes each; id_bytes: of an id; floats: with
    // norms.
    Shelves(int64_t block_bytes, int64_t item, int64_t id_bytes, bool floats)
        : block_bytes_(block_bytes), item_(item), id_bytes_(id_bytes), norm_bytes_(floats ? 4 : 0) {}

    struct Shelf;
    // Part of a superblock, given back where its last holder is gone.
    class Place {
      public:
        Place() = default;
        Place(std::shared_ptr<Shelves> owner, Shelf* shelf, int first, int steps);
        Place(const Place&) = delete;
        Place& operator=(Place&& other) noexcept;
        ~Place();

        uint8_t* codes() const;
        float* norms() const;  // nullptr where there are none
        void* ids() const;
        bool is_closed() const;  // whether it shall be left, see close_sparse()

      private:
        std::shared_ptr<Shelves> owner_;
        Shelf* shelf_ = nullptr;
        int first_ = 0, steps_ = 0;
    };

    // Zeros, for so many rows, rounded up to whole steps; at most a superblock of them.
    Place take(int64_t rows);
    // Where much of what is reserved is not in use, as lists that grow leave gaps: closes the memory that is
    // used least. Nothing is taken from it any more; it is freed once all that lies there is given back. True
    // where there is such.
    bool close_sparse();
    // What lay there has moved: gaps that are left now are those of chunks that do not fit together, not
    // worth another try.
    void settle();
    // Bytes that are reserved and not in use, of codes and norms, and of ids.
    std::array<int64_t, 2> free_bytes();

  private:
    static constexpr int kSteps = kSuperblock / kStep;

    struct Arena {
        std::unique_ptr<char, std::function<void(char*)>> memory;
        std::vector<Shelf> shelves;
        int used = 0;  // steps
        bool closed = false;
    };

    void add_arena();
    void close(Arena* arena);
    void give_back(Shelf* shelf, uint32_t steps);
    void put(Shelf* shelf);     // where take() finds it
    void remove(Shelf* shelf);  // from there

    const int64_t block_bytes_, item_, id_bytes_, norm_bytes_;
    Mutex mutex_;
    std::vector<std::unique_ptr<Arena>> arenas_;
    int64_t shelves_ = 0, free_steps_ = 0, closed_shelves_ = 0;  // the first two of what is not closed
    int64_t settled_ = 0;                       // free steps that were left when chunks last moved
    std::array<Shelf*, kSteps + 1> by_room_{};  // by the longest run of free steps, linked
};

struct Shelves::Shelf {
    Arena* arena = nullptr;
    uint8_t* codes = nullptr;
    float* norms = nullptr;
    char* ids = nullptr;
    uint32_t used = 0;                           // a bit a step
    int room = 0;                                // the longest run of free steps
    Shelf *next = nullptr, *previous = nullptr;  // of as much room
};

}  // namespace annvq
