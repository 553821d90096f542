// Size classes. A request below 2 MiB is rounded up to its tier; from 2 MiB up to a multiple of
// 2 MiB (the tier then only names the row of the statistics).
//
// With S steps per doubling the tiers are 256 B apart up to S * 256 B, and from there every
// doubling has S equal steps. S = 4: 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, ...
#ifndef CMP_CORE_BASE_TIERS_H_
#define CMP_CORE_BASE_TIERS_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/base/types.h"

namespace cmp {

inline constexpr unsigned kMaxTierSteps = 16;
// Enough for 16 steps per doubling up to 2^48 bytes.
inline constexpr unsigned kMaxTiers = kMaxTierSteps * (48 - 8 + 1);
// Below 2 MiB, hence with a free list of their own: 256 B << 13 is 2 MiB.
inline constexpr unsigned kMaxSmallTiers = kMaxTierSteps * 14;
// The largest request that has a tier; no device has more.
inline constexpr size_t kMostTierBytes = (size_t{1} << 47) - 1;

class Tiers {
 public:
  // REQUIRES: steps is 1, 2, 4, 8 or 16
  explicit constexpr Tiers(unsigned steps)
      : shift_(static_cast<unsigned>(std::bit_width(steps)) - 1), steps_(steps) {}

  // The tier that serves a request. REQUIRES: 0 < bytes < 2^48
  constexpr unsigned TierOf(size_t bytes) const {
    const size_t unit = (bytes - 1) / kMinBlock;  // 0-based, in steps of 256 B
    // Doubling 0 has 2 S steps; | keeps smaller units in it, and leaves the others' width.
    const unsigned doubling = (63 ^ static_cast<unsigned>(__builtin_clzll(unit | steps_))) - shift_;
    return (doubling << shift_) + static_cast<unsigned>(unit >> doubling);
  }

  // The bytes of a block of a tier.
  constexpr size_t SizeOf(unsigned tier) const {
    if (tier >> shift_ == 0) return (size_t{tier} + 1) * kMinBlock;
    const unsigned doubling = (tier >> shift_) - 1;
    const size_t steps = tier - (doubling << shift_);
    return ((steps + 1) << doubling) * kMinBlock;
  }

  // What the real call is asked for when a request needs a new block.
  constexpr size_t RoundedBytes(size_t bytes) const {
    const size_t in_tier = SizeOf(TierOf(bytes));
    if (in_tier < kLargeGranule) return in_tier;
    return (bytes + kLargeGranule - 1) & ~(kLargeGranule - 1);
  }

  // What a small block of `rounded` bytes takes of the device beyond one of `bytes`: often nothing.
  static constexpr size_t Waste(size_t rounded, size_t bytes) {
    return ((rounded + kSmallGrain - 1) / kSmallGrain - (bytes + kSmallGrain - 1) / kSmallGrain) *
           kSmallGrain;
  }
  constexpr unsigned steps() const { return steps_; }

 private:
  unsigned shift_;  // log2 of
  unsigned steps_;  // the steps per doubling
};

// 2 MiB falls into a tier of its own for every number of steps, so "small" is a range of tiers.
static_assert(Tiers(4).SizeOf(Tiers(4).TierOf(2 * kMiB)) == 2 * kMiB);
static_assert(Tiers(16).TierOf(2 * kMiB) < kMaxSmallTiers);
static_assert(Tiers(16).TierOf(size_t{1} << 47) < kMaxTiers);
static_assert(Tiers(1).SizeOf(2) == 1024 && Tiers(4).SizeOf(8) == 2560);

}  // namespace cmp

#endif  // CMP_CORE_BASE_TIERS_H_
