#include "store/row_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "common/large_pages.h"
#include "scan/norm_bytes.h"

namespace annvq {
namespace {

constexpr std::align_val_t kAlignment{64};

template <class T>
T* aligned(int64_t count, Chunk* owner) {
    T* p = static_cast<T*>(operator new(count * sizeof(T), kAlignment));
    owner->memory.emplace_front(p, [](void* q) { operator delete(q, kAlignment); });
    return p;
}

// Codebooks of at most 16 entries lie two to a byte.
bool nibbles(const StoreShape& s, const uint8_t* relabel) {
    return !s.wide && !relabel && s.M > 1 && *std::max_element(s.sizes.begin(), s.sizes.end()) <= 16;
}

}  // namespace

RowFormat::RowFormat(StoreShape shape, const uint8_t* relabel)
    : shape_(std::move(shape)), layout_(shape_.M, shape_.norm, nibbles(shape_, relabel), relabel) {
    const auto shelves = [&](int64_t id_bytes) {
        return std::make_shared<Shelves>(block_bytes(), item(), id_bytes, shape_.norm == NormKind::floats);
    };
    wide_shelves_ = shelves(8), narrow_shelves_ = shelves(4);
}

int64_t RowFormat::block_bytes() const {
    if (!shape_.wide) return layout_.columns() * kSuperblock;
    return 2 * kSuperblock * (shape_.M + (shape_.norm == NormKind::levels));
}

std::shared_ptr<Chunk> RowFormat::make_chunk(int64_t rows, uint32_t serial, bool narrow) const {
    auto chunk = std::make_shared<Chunk>();
    chunk->serial = serial;
    constexpr int64_t step = Shelves::kStep;
    if ((rows + step - 1) / step * step < kSuperblock) {
        chunk->place = (narrow ? narrow_shelves_ : wide_shelves_)->take(rows);
        chunk->capacity = (rows + step - 1) / step * step;
        chunk->codes = chunk->place.codes();
        chunk->norms = chunk->place.norms();
        void* ids = chunk->place.ids();
        chunk->ids = narrow ? Ids(static_cast<uint32_t*>(ids)) : Ids(static_cast<int64_t*>(ids));
        return chunk;
    }
    const int64_t blocks = superblocks(rows);
    chunk->capacity = blocks * kSuperblock;
    const int64_t bytes = blocks * block_bytes();
    // A single query reads all of it: on small pages it would wait for page tables too.
    chunk->codes = static_cast<uint8_t*>(large_pages(bytes));
    chunk->memory.emplace_front(chunk->codes, free_large_pages);
    std::memset(chunk->codes, 0, bytes);
    if (shape_.norm == NormKind::floats) chunk->norms = aligned<float>(chunk->capacity, chunk.get());
    return chunk;
}

void RowFormat::make_ids(Chunk& chunk, bool narrow) {
    if (narrow)
        chunk.ids = aligned<uint32_t>(chunk.capacity, &chunk);
    else
        chunk.ids = aligned<int64_t>(chunk.capacity, &chunk);
}

std::shared_ptr<Chunk> RowFormat::grown(const Chunk& from, int64_t n, int64_t rows) const {
    auto chunk = make_chunk(rows, from.serial, from.ids.narrow);
    if (!chunk->ids) make_ids(*chunk, from.ids.narrow);
    const int64_t stride = kSuperblock * item();
    for (int64_t c = 0; c < columns(); c++)
        std::memcpy(chunk->codes + c * stride, from.codes + c * stride, n * item());
    if (chunk->norms) std::memcpy(chunk->norms, from.norms, n * sizeof(float));
    std::memcpy(const_cast<void*>(chunk->ids.data), from.ids.data, n * from.ids.bytes());
    chunk->norm_low = from.norm_low, chunk->norm_step = from.norm_step;
    return chunk;
}

void RowFormat::take_blocks(Chunk& chunk, const uint8_t* blocks, int64_t n) const {
    const int64_t whole = n / kSuperblock * kSuperblock, rest = n - whole;
    std::memcpy(chunk.codes, blocks, whole * columns());
    for (int64_t c = 0; c < columns(); c++)
        std::memcpy(chunk.codes + whole * columns() + c * kSuperblock, blocks + whole * columns() + c * rest,
                    rest);
}

bool RowFormat::close_sparse() const {
    const bool wide = wide_shelves_->close_sparse(), narrow = narrow_shelves_->close_sparse();
    return wide || narrow;
}

void RowFormat::settle() const {
    wide_shelves_->settle();
    narrow_shelves_->settle();
}

std::array<int64_t, 2> RowFormat::spare_bytes() const {
    const auto one = wide_shelves_->free_bytes(), other = narrow_shelves_->free_bytes();
    return {one[0] + other[0], one[1] + other[1]};
}

void RowFormat::write(Chunk& chunk, int64_t at, const Rows& rows, int64_t row) const {
    const int64_t M = shape_.M;
    if (shape_.wide) {
        const uint16_t* code = static_cast<const uint16_t*>(rows.codes) + row * M;
        uint16_t* out =
            reinterpret_cast<uint16_t*>(chunk.codes + at / kSuperblock * block_bytes()) + at % kSuperblock;
        for (int64_t m = 0; m < M; m++) out[m * kSuperblock] = code[m];
        if (shape_.norm == NormKind::levels) out[M * kSuperblock] = rows.norm_bytes[row];
    } else {
        uint8_t byte = 0;
        if (shape_.norm == NormKind::levels) byte = rows.norm_bytes[row];
        if (shape_.norm == NormKind::floats)
            byte = norm_byte(rows.norms[row], {chunk.norm_low, chunk.norm_step});
        layout_.pack(static_cast<const uint8_t*>(rows.codes) + row * M, &byte, 1, at, chunk.codes);
    }
    if (chunk.norms) chunk.norms[at] = rows.norms[row];
    if (chunk.ids) chunk.set_id(at, rows.ids[row]);
}

void RowFormat::read(const Chunk& chunk, int64_t at, void* codes, uint8_t* byte, float* norm) const {
    const int64_t M = shape_.M;
    if (shape_.wide) {
        const uint16_t* from =
            reinterpret_cast<const uint16_t*>(chunk.codes + at / kSuperblock * block_bytes()) +
            at % kSuperblock;
        for (int64_t m = 0; m < M; m++) static_cast<uint16_t*>(codes)[m] = from[m * kSuperblock];
        if (shape_.norm == NormKind::levels) *byte = static_cast<uint8_t>(from[M * kSuperblock]);
    } else {
        layout_.unpack(chunk.codes, at, static_cast<uint8_t*>(codes),
                       shape_.norm == NormKind::levels ? byte : nullptr);
    }
    if (chunk.norms) *norm = chunk.norms[at];
}

void RowFormat::fetch(const Chunk& chunk, int64_t at) const {
    const int64_t item = shape_.wide ? 2 : 1;
    const uint8_t* from = chunk.codes + at / kSuperblock * block_bytes() + at % kSuperblock * item;
    for (int64_t c = 0; c < layout_.columns(); c++) __builtin_prefetch(from + c * kSuperblock * item);
}

void set_norm_range(Chunk& chunk, const Rows& rows, const int64_t* picked, int64_t count) {
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; i++) values[i] = rows.norms[picked[i]];
    const float low = *std::min_element(values.begin(), values.end());
    const float high = *std::max_element(values.begin(), values.end());
    // Room below for rows still to come; a row that lies lower still starts a new chunk.
    const float room = std::isfinite(high - low) ? (high - low) / 8 : 0.f;
    values.push_back(low - room);
    const NormRange range = norm_range(values.data(), static_cast<int64_t>(values.size()));
    chunk.norm_low = range.low;
    chunk.norm_step = range.step;
}

}  // namespace annvq
