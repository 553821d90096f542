// What is tried before an allocation, or another call, fails for lack of memory.
#ifndef CMP_CORE_POOL_LADDER_H_
#define CMP_CORE_POOL_LADDER_H_

#include "core/pool/block_source.h"

namespace cmp {

// A real call that failed for lack of memory: what is released before it is tried again, and how
// often that is worth it.
//
//   as much as it needs, then twice as much each time      as long as there is so much
//   all that is left; after that has failed, what other    three times: others may go on freeing
//   threads had in hand meanwhile, and all that is left    for ever
//
// What was idle when the call began has been free for one of the tries then, but for what the
// program has by now: so the call would have failed without the pool, too.
class Ladder {
 public:
  static constexpr size_t kFound = ~size_t{0};  // in place of bytes: what is needed is there

  // `bytes`: what it needs of `device`, or of all; 0: not known. `releases`: those before it
  // failed.
  Ladder(BlockSource& source, int device, size_t bytes, uint64_t releases)
      : source_(source), device_(device), wanted_(bytes == 0 ? 1 : bytes), releases_(releases) {
    source_.BeginLack();
  }
  ~Ladder() { source_.EndLack(); }
  Ladder(const Ladder&) = delete;
  Ladder& operator=(const Ladder&) = delete;

  // Calls release(bytes), which really frees about as many that are idle, and returns how many.
  // True: the call is worth another try. False: its last failure is the program's.
  template <typename Release>
  bool Climb(Release release) {
    for (;;) {
      if (exhausted_) {
        const bool changed = released_ != 0 || source_.releases() != releases_;
        if (waits_ == kMostWaits || (waits_ != 0 && !changed)) return false;
        ++waits_;
        source_.AwaitTakers(device_);
      }
      released_ = release(wanted_);
      if (released_ == kFound) return true;
      exhausted_ = released_ < wanted_;
      if (!exhausted_) wanted_ = wanted_ > kFound / 2 ? kFound : 2 * wanted_;
      // Before the next try: what is freed during it makes one more worth it.
      if (source_.releases() == releases_) continue;
      releases_ = source_.releases();
      return true;
    }
  }

 private:
  static constexpr int kMostWaits = 3;

  BlockSource& source_;
  const int device_;
  size_t wanted_;
  uint64_t releases_;
  size_t released_ = 0;
  bool exhausted_ = false;  // there was less than wanted
  int waits_ = 0;
};

template <typename FindFit>
Allocation BlockSource::MakeAfterReleases(ContextPool& context, const Request& request,
                                          uint64_t releases, const DeviceApi& api,
                                          FindFit find_fit) {
  Allocation made;
  bool ask_others = false;
  const auto release = [&](size_t bytes) {
    context.EmptyCaches(true);
    made = find_fit();
    if (made.pooled()) return Ladder::kFound;
    const size_t kept = ReleaseKept(context.device());
    if (kept >= bytes) return kept;
    const size_t own = kept + ReleaseForMemory(context, bytes - kept, Patience::kAllocation, api);
    // A part may do: other contexts are asked where it did not.
    const bool enough = own != 0 && !ask_others;
    ask_others = own < bytes;
    return enough || own >= bytes ? own : own + release_others_(others_, context, bytes - own, api);
  };
  // What the device cannot hold is not made by releases; the last try says so.
  const size_t most = context.identity().device_bytes;
  const bool possible = most == 0 || request.requested <= most;
  Ladder ladder(*this, context.device(), request.bytes, releases);
  while (possible && ladder.Climb(release)) {
    if (made.pooled()) return made;
    made = Make(context, request, false, api);
    if (made.status != kOutOfMemory) return made;
  }
  // A block of an odd size fits no tier: it is really freed when it comes back.
  Request exact = request;
  exact.bytes = request.requested;
  if (exact.bytes != request.bytes) exact.state = BlockState::kUnpooled;
  return Make(context, exact, true, api);
}

}  // namespace cmp

#endif  // CMP_CORE_POOL_LADDER_H_
