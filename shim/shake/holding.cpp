#include "shim/shake/holding.h"

#include <algorithm>
#include <utility>

#include "core/base/rules.h"
#include "shim/record/shake_counts.h"

namespace cmp {

namespace {

// Of this execution of the site, the count-th: the same in every run.
uint64_t RandomOf(uint64_t seed, const ShakeSite& site) {
  return MixShake(MixShake(seed, site.id), site.count);
}

// Every eighth execution, by the seed. Where holds were in vain, fewer and fewer of those.
uint64_t OneIn(const ShakeSite& site) {
  if (!RuleIsOn(Rule::kHoldsInVainBecomeFewer)) return 8;
  constexpr uint32_t kInVainForFewer = 4;
  return uint64_t{8} << 2 * std::min(site.in_vain / kInVainForFewer, 3u);
}

// How long a hold may last: all of the time, a half, a quarter, by the seed. The longer ones are
// for programs that take their time; they leave fewer to the other sites.
uint64_t MostHeldNs(uint64_t random) { return Holding::kMostHeldNs >> (random >> 32) % 3; }

// And how long behind the later work's submission, which usually is not long: it waits either for
// what is held, and then in vain, or only for what its stream had before. in_vain counts this hold,
// too.
uint64_t MostFollowedNs(const ShakeSite& site) {
  return Holding::kLeastFollowedNs << std::min(site.in_vain, 5u);
}

}  // namespace

void Holding::Begin(ShakeKind kind, uint64_t seed, uint64_t begun) {
  kind_ = kind;
  seed_ = seed;
  begun_ = begun;
}

void Holding::CountEffective() {
  hold_.site->in_vain = 0;
  sites_.Count(g_shake_counts.effective, hold_.site->effective);
}

void Holding::Arrive(uint64_t now, uint32_t thread) {
  EndIfOver(now);
  // The host's side of kind `host`: the free returned, and its thread comes with the next call.
  const bool goes_on = kind_ == ShakeKind::kHost && hold_.state == State::kFreed && thread != 0 &&
                       hold_.free_thread == thread;
  if (goes_on && !std::exchange(hold_.went_on, true)) CountEffective();
}

ShakeSite* Holding::Choose(const ShakeCall& call, uint64_t now) {
  ShakeSite* const site = sites_.Find(ShakeSites::IdOf(kind_, call));
  if (site == nullptr || !site->listed) return nullptr;
  if (site->earlier.name == nullptr) site->earlier = call;
  sites_.Count(g_shake_counts.executions, site->count);
  const uint64_t random = RandomOf(seed_, *site);
  if (random % OneIn(*site) != 0) return nullptr;
  // If it lasts as long as it may, then a third of the time was without holds.
  const uint64_t most = MostHeldNs(random);
  return 3 * (held_ns_ + most) <= 2 * (now - begun_ + most) ? site : nullptr;
}

bool Holding::Follow(const ShakeCall& call, const ShakeStream& stream, bool waits, uint64_t now) {
  if (hold_.state != State::kFreed || kind_ != ShakeKind::kOrder) return false;
  if (AreOrdered(*hold_.stream, stream)) return false;
  hold_.state = State::kFollowed;
  hold_.later_waits = waits;
  if (!waits) hold_.end = std::min(hold_.end, now + MostFollowedNs(*hold_.site));
  sites_.Later(*hold_.site, call);
  words_.DeviceWillWrite(hold_.target, true);
  return true;
}

HoldTarget Holding::Start(ShakeSite& site, const ShakeStream& stream, uint64_t now) {
  if (!is_none()) return {};
  const HoldTarget target = words_.Take();
  if (target.word == nullptr) return {};
  const uint64_t end = now + MostHeldNs(RandomOf(seed_, site));
  hold_ = {State::kHeld, target, &site, &stream, now, end};
  ++site.in_vain;
  return target;
}

void Holding::Free(const CallSite* where, uint32_t thread, size_t bytes) {
  if (hold_.state != State::kHeld) return;
  hold_.state = State::kFreed;
  hold_.free_thread = thread;
  sites_.Freed(*hold_.site, where, thread, bytes);
}

bool Holding::Wait(StreamName name, uint64_t now) {
  if (hold_.state == State::kFollowed) {
    if (hold_.later_waits) return false;
    hold_.end = std::min(hold_.end, now + kMoreAtWaitsNs);
    return true;
  }
  if (!is_none() && IsWaitedFor(name, *hold_.stream)) LetGo(now, false);
  return false;
}

// What returned only once it was done needs no write: the host lets go, and that was in time.
void Holding::Followed(const HoldTarget& target, bool will_write, bool waited, uint64_t now) {
  if (!will_write) words_.DeviceWillWrite(target, false);
  if (!waited || hold_.state != State::kFollowed || !IsFor(target)) return;
  CountEffective();
  LetGo(now, false);
}

void Holding::EndIfOver(uint64_t now) {
  if (is_none()) return;
  const bool over = now >= hold_.end;
  if (over || HoldWords::DeviceHasWritten(hold_.target)) LetGo(now, over);
}

void Holding::End(uint64_t now) {
  if (!is_none()) LetGo(now, false);
}

void Holding::StreamEnds(const ShakeStream& stream, uint64_t now) {
  if (!is_none() && hold_.stream == &stream) LetGo(now, false);
}

void Holding::ThreadEnds(uint32_t thread) {
  if (hold_.free_thread == thread) hold_.free_thread = 0;
}

void Holding::LetGo(uint64_t now, bool by_timer) {
  // What is seen too late may have happened because the hold was over.
  if (words_.LetGo(hold_.target) && !by_timer) {
    CountEffective();
  } else if (by_timer) {
    g_shake_counts.let_go_by_timer.AddShared(1);
  }
  const uint64_t held = std::min(now, hold_.end) - hold_.begin;
  held_ns_ += held;
  g_shake_counts.held_ns.AddShared(held);
  hold_ = {};
}

}  // namespace cmp
