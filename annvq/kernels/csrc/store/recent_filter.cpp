#include "store/recent_filter.h"

#include <algorithm>
#include <cstring>

#include "common/bits.h"
#include "store/kernels.h"
#include "store/segments.h"

namespace annvq {
namespace {

constexpr int64_t kManyRows = 1 << 16;  // fewer are scanned in the time that looking takes
constexpr int64_t kFewAllowed = 8;      // one in so many at most

// Bytes [from, from + 64 * words) of a bitmap as bits; beyond its end nothing is allowed.
void read_bits(const Allowed& given, int64_t from, int64_t words, uint64_t* out) {
    std::fill(out, out + words, uint64_t{0});
    const int64_t whole = std::min(words, (given.bitmap_size - from) / 64);
    store_kernels().pack_bits(given.bitmap + from, whole, out);
    for (int64_t i = from + 64 * whole; i < std::min(given.bitmap_size, from + 64 * words); i++)
        out[(i - from) / 64] |= static_cast<uint64_t>(given.bitmap[i] != 0) << (i % 64);
}

}  // namespace

RecentFilter::Sample RecentFilter::sample_of(const Allowed& given) {
    Sample sample;
    sample.listed = given.ids != nullptr;
    sample.size = sample.listed ? given.count : given.bitmap_size;
    const int64_t items = sample.listed ? given.count : given.bitmap_size / 8;
    const int64_t taken = std::min<int64_t>(items, static_cast<int64_t>(sample.words.size()));
    const void* from = sample.listed ? static_cast<const void*>(given.ids) : given.bitmap;
    for (int64_t i = 0; i < taken; i++)
        std::memcpy(&sample.words[i],
                    static_cast<const char*>(from) + i * (items - 1) / std::max<int64_t>(1, taken - 1) * 8,
                    8);
    return sample;
}

bool RecentFilter::same(const Kept& kept, const Allowed& given) {
    if (given.ids) return std::equal(kept.ids.begin(), kept.ids.end(), given.ids);
    constexpr int64_t at_once = 64;
    uint64_t words[at_once];
    const int64_t total = static_cast<int64_t>(kept.bits.size());
    for (int64_t w = 0; w < total; w += at_once) {
        const int64_t count = std::min(at_once, total - w);
        read_bits(given, 64 * w, count, words);
        if (std::memcmp(words, kept.bits.data() + w, count * sizeof(uint64_t)) != 0) return false;
    }
    return true;
}

std::shared_ptr<const RecentFilter::Kept> RecentFilter::keep(const Sample& sample, const Allowed& given,
                                                             int64_t stored) {
    auto kept = std::make_shared<Kept>();
    kept->sample = sample;
    if (given.ids) {
        if (kFewAllowed * given.count > stored) return nullptr;
        kept->ids.assign(given.ids, given.ids + given.count);
        kept->prepared = std::make_shared<PreparedFilter>(std::vector<uint8_t>{},
                                                          sorted_set(kept->ids.data(), given.count), true);
        return kept;
    }
    kept->bits.resize((given.bitmap_size + 63) / 64);
    read_bits(given, 0, static_cast<int64_t>(kept->bits.size()), kept->bits.data());
    if (kFewAllowed * count_bits(kept->bits.data(), static_cast<int64_t>(kept->bits.size())) > stored)
        return nullptr;
    // From the bits, not from the caller's bytes: they are what is compared.
    std::vector<uint8_t> bitmap(given.bitmap_size);
    for (int64_t i = 0; i < given.bitmap_size; i++) bitmap[i] = kept->bits[i / 64] >> (i % 64) & 1;
    kept->prepared = std::make_shared<PreparedFilter>(std::move(bitmap), std::vector<int64_t>{}, false);
    return kept;
}

std::shared_ptr<PreparedFilter> RecentFilter::find(const Allowed& given, int64_t stored) {
    if (stored < kManyRows || given.any_id()) return nullptr;
    const Sample sample = sample_of(given);
    std::shared_ptr<const Kept> kept;
    {
        std::lock_guard<Mutex> lock(mutex_);
        if (kept_ && kept_->sample == sample) {
            kept = kept_;
        } else {
            if (sample == refused_) return nullptr;
            const bool again = sample == last_;
            last_ = sample;
            if (!again) return nullptr;
        }
    }
    if (kept && same(*kept, given)) return kept->prepared;
    // One that differs little each time is not worth keeping.
    auto found = kept ? nullptr : keep(sample, given, stored);
    std::lock_guard<Mutex> lock(mutex_);
    kept_ = found;
    if (found) return found->prepared;
    refused_ = sample;
    return nullptr;
}

void RecentFilter::forget() {
    std::lock_guard<Mutex> lock(mutex_);
    last_ = refused_ = Sample{};
    kept_ = nullptr;
}

}  // namespace annvq
