#include "store/shelves.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "common/bits.h"
#include "common/large_pages.h"

namespace annvq {
namespace {

constexpr int64_t kMostShelves = 64;  // of an arena

int longest_run(uint32_t bits) {
    int run = 0;
    for (; bits; bits &= bits << 1) run++;
    return run;
}

// The first step of the first run of so many free ones.
int first_run(uint32_t free, int steps) {
    uint32_t starts = free;
    for (int i = 1; i < steps; i++) starts &= free >> i;
    return lowest_bit(starts);
}

uint32_t mask_of(int first, int steps) {
    return static_cast<uint32_t>(((uint64_t{1} << steps) - 1) << first);
}

}  // namespace

Shelves::Place::Place(std::shared_ptr<Shelves> owner, Shelf* shelf, int first, int steps)
    : owner_(std::move(owner)), shelf_(shelf), first_(first), steps_(steps) {}

Shelves::Place& Shelves::Place::operator=(Place&& other) noexcept {
    std::swap(owner_, other.owner_), std::swap(shelf_, other.shelf_);
    std::swap(first_, other.first_), std::swap(steps_, other.steps_);
    return *this;
}

Shelves::Place::~Place() {
    if (owner_) owner_->give_back(shelf_, mask_of(first_, steps_));
}

uint8_t* Shelves::Place::codes() const { return shelf_->codes + first_ * kStep * owner_->item_; }

float* Shelves::Place::norms() const { return shelf_->norms ? shelf_->norms + first_ * kStep : nullptr; }

bool Shelves::Place::is_closed() const { return shelf_ && shelf_->arena->closed; }

void* Shelves::Place::ids() const { return shelf_->ids + first_ * kStep * owner_->id_bytes_; }

Shelves::Place Shelves::take(int64_t rows) {
    const int steps = static_cast<int>((rows + kStep - 1) / kStep);
    std::lock_guard<Mutex> lock(mutex_);
    int room = steps;
    while (room <= kSteps && !by_room_[room]) room++;
    if (room > kSteps) add_arena(), room = kSteps;
    Shelf* shelf = by_room_[room];
    const int first = first_run(~shelf->used, steps);
    remove(shelf);
    shelf->arena->used += steps;
    shelf->used |= mask_of(first, steps);
    free_steps_ -= steps;
    shelf->room = longest_run(~shelf->used);
    put(shelf);
    return Place(shared_from_this(), shelf, first, steps);
}

void Shelves::give_back(Shelf* shelf, uint32_t steps) {
    std::lock_guard<Mutex> lock(mutex_);
    Arena* arena = shelf->arena;
    int count = 0;
    for (uint32_t s = steps; s; s &= s - 1) count++;
    arena->used -= count;
    shelf->used &= ~steps;
    const auto shelves = static_cast<int64_t>(arena->shelves.size());
    if (arena->closed) {
        if (arena->used) return;
        closed_shelves_ -= shelves;
    } else {
        free_steps_ += count;
        remove(shelf);
        shelf->room = longest_run(~shelf->used);
        put(shelf);
        if (arena->used) return;
        close(arena);
        closed_shelves_ -= shelves;
    }
    arenas_.erase(std::find_if(arenas_.begin(), arenas_.end(), [&](auto& a) { return a.get() == arena; }));
}

void Shelves::close(Arena* arena) {
    for (Shelf& s : arena->shelves) remove(&s);
    const auto shelves = static_cast<int64_t>(arena->shelves.size());
    shelves_ -= shelves, closed_shelves_ += shelves;
    free_steps_ -= kSteps * shelves - arena->used;
    arena->closed = true;
}

bool Shelves::close_sparse() {
    constexpr int64_t few = 16,
                      share = 20;  // not worth it; and of what is reserved, one in so many may be free
    std::lock_guard<Mutex> lock(mutex_);
    settled_ = std::min(settled_, free_steps_);
    if (shelves_ < few || share * (free_steps_ - settled_) < kSteps * shelves_) return false;
    bool any = false;
    for (auto& arena : arenas_) {
        const auto steps = static_cast<int64_t>(arena->shelves.size()) * kSteps;
        if (arena->closed || share * (steps - arena->used) < steps) continue;
        close(arena.get());
        any = true;
    }
    return any;
}

void Shelves::settle() {
    std::lock_guard<Mutex> lock(mutex_);
    settled_ = free_steps_;
}

void Shelves::add_arena() {
    const int64_t count = std::clamp(shelves_ / 16, int64_t{1}, kMostShelves);
    const int64_t norms = kSuperblock * norm_bytes_, ids = kSuperblock * id_bytes_;
    auto arena = std::make_unique<Arena>();
    // Codes first: a scan may load lanes past a chunk's own, up to a column further.
    const int64_t bytes = count * (block_bytes_ + norms + ids);
    arena->memory = {static_cast<char*>(own_pages(bytes)), [bytes](char* p) { free_own_pages(p, bytes); }};
    char* at = arena->memory.get();
    arena->shelves.resize(count);
    for (int64_t i = 0; i < count; i++) {
        Shelf& s = arena->shelves[i];
        s.arena = arena.get();
        s.room = kSteps;
        s.codes = reinterpret_cast<uint8_t*>(at + i * block_bytes_);
        if (norms) s.norms = reinterpret_cast<float*>(at + count * block_bytes_ + i * norms);
        s.ids = at + count * (block_bytes_ + norms) + i * ids;
    }
    arenas_.push_back(std::move(arena));
    for (Shelf& s : arenas_.back()->shelves) put(&s);
    shelves_ += count;
    free_steps_ += kSteps * count;
}

void Shelves::put(Shelf* shelf) {
    Shelf*& first = by_room_[shelf->room];
    shelf->next = first, shelf->previous = nullptr;
    if (first) first->previous = shelf;
    first = shelf;
}

void Shelves::remove(Shelf* shelf) {
    (shelf->previous ? shelf->previous->next : by_room_[shelf->room]) = shelf->next;
    if (shelf->next) shelf->next->previous = shelf->previous;
}

std::array<int64_t, 2> Shelves::free_bytes() {
    std::lock_guard<Mutex> lock(mutex_);
    const int64_t rows = free_steps_ * kStep + closed_shelves_ * kSuperblock;
    return {rows * (block_bytes_ / kSuperblock + norm_bytes_), rows * id_bytes_};
}

}  // namespace annvq
