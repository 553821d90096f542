#include "scheduler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "allocations.h"
#include "hazards.h"
#include "settings.h"

namespace cmp::sim {

thread_local bool t_in_program_function = false;  // read by MayEnter

namespace {

bool AllDone(const std::vector<ItemPtr>& items) {
  return std::all_of(items.begin(), items.end(), [](const ItemPtr& item) {
    return item == nullptr || item->state == ItemState::kDone;
  });
}

size_t ThreadsOfThisProcess() {
  std::error_code error;
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", error)) {
    (void)entry;
    ++count;
  }
  return count;
}

}  // namespace

Scheduler::Scheduler(Hazards& hazards, Allocations& allocations)
    : hazards_(hazards), allocations_(allocations) {
  Seed(TheSettings().seed);
}

void Scheduler::Seed(uint64_t seed) {
  seed_ = seed;
  random_.seed(seed);
}

void Scheduler::HostCall(Lock& lock) { Advance(lock, TheSettings().call_ns); }

void Scheduler::Advance(Lock& lock, uint64_t nanoseconds) {
  now_ += nanoseconds;
  progress_ += nanoseconds;
  EndWaitsForValues();  // the program writes page-locked memory at any time
  RunDue(lock);
}

void Scheduler::RunDue(Lock& lock) {
  while (!runnable_.empty() && runnable_.begin()->second->due <= progress_) {
    Run(lock, runnable_.begin()->second);
  }
}

ItemPtr Scheduler::Submit(Context& context, Work work, std::vector<ItemPtr> needs,
                          std::vector<const Context*> runs_in) {
  auto item = std::make_shared<Item>();
  item->number = ++last_number_;
  item->context = &context;
  item->runs_in = std::move(runs_in);
  if (item->runs_in.empty()) item->runs_in = {&context};
  item->work = std::move(work);
  item->cancelled = context.failed != CUDA_SUCCESS;
  item->submitted_at = now_;
  item->finished_at = now_;
  for (ItemPtr& need : needs) {
    if (need == nullptr || need->state == ItemState::kDone) continue;
    if (std::find(item->needs.begin(), item->needs.end(), need) != item->needs.end()) continue;
    need->dependents.push_back(item.get());
    item->needs.push_back(std::move(need));
  }
  item->unmet = item->needs.size();
  item->tie_breaker = jittered() ? random_() : 0;
  pending_[item->number] = item;
  hazards_.Submit(item);
  if (item->unmet == 0) MakeRunnable(*item);
  ++changes_;
  if (const uint64_t id = item->work.id; id != 0) {
    // What spins until this item is launched ends now, or will not begin.
    auto [at, last] = awaited_.equal_range(id);
    while (at != last) {
      const ItemPtr spinner = std::move(at->second);
      at = awaited_.erase(at);
      spinner->work.spin_until_id = 0;
      if (spinner->state != ItemState::kSpinning) continue;
      std::erase(spinning_, spinner);
      spinner->finished_at = std::max(spinner->finished_at, now_);
      MakeRunnable(*spinner);
    }
  }
  if (item->work.spin_until_id != 0) awaited_.emplace(item->work.spin_until_id, item);
  changed_.notify_all();
  return item;
}

void Scheduler::MakeRunnable(Item& item) {
  const ItemPtr owned = pending_.at(item.number);
  const bool spins = item.work.spin_until_id != 0 || item.work.endless || !HasItsValue(item);
  if (spins && !item.cancelled) {
    item.state = ItemState::kSpinning;
    const uint64_t hold_ns = TheSettings().hold_ns;
    item.due = item.work.until && hold_ns != 0 ? progress_ + hold_ns : UINT64_MAX;
    spinning_.push_back(owned);
    return;
  }
  uint64_t duration = item.cancelled ? 0 : item.work.duration_ns;
  uint64_t lateness = 0;
  if (jittered()) {
    // A factor between 1/4 and 4, and for the lazy policy a delay on top.
    duration = static_cast<uint64_t>(static_cast<double>(duration) *
                                     std::exp2(std::uniform_real_distribution<>(-2, 2)(random_)));
    if (lazy()) lateness = random_() % (TheSettings().lateness_ns + 1);
  }
  item.finished_at += duration;
  // The devices' own clock may be behind the observable one; what is left to do counts on theirs.
  const uint64_t left = item.finished_at > now_ ? item.finished_at - now_ : 0;
  item.due = progress_ + left + lateness;
  item.state = ItemState::kRunnable;
  runnable_[KeyOf(item)] = owned;
}

// Of memory that was freed meanwhile nothing is read, and nobody signals a semaphore that was
// destroyed: the item ends, and is reported.
bool Scheduler::HasItsValue(const Item& item) const {
  if (!item.work.until || item.lost) return true;
  if (item.state == ItemState::kSpinning && item.due <= progress_) return true;
  for (const UsedObject& used : item.work.objects) {
    if (used.object.expired()) return true;
  }
  for (const Range& range : item.work.reads) {
    if (!allocations_.IsUsable(range)) return true;
  }
  return item.work.until();
}

bool Scheduler::EndWaitsForValues() {
  std::vector<ItemPtr> ended;
  for (const ItemPtr& item : spinning_) {
    if (item->work.until && HasItsValue(*item)) ended.push_back(item);
  }
  for (const ItemPtr& item : ended) {
    std::erase(spinning_, item);
    item->work.until = nullptr;
    item->finished_at = std::max(item->finished_at, now_);
    MakeRunnable(*item);
  }
  changes_ += ended.size();
  return !ended.empty();
}

bool Scheduler::EndLongWait(const ItemPtr& next) {
  if (TheSettings().hold_ns == 0 || (lazy() && next != nullptr)) return false;
  uint64_t end = UINT64_MAX;
  for (const ItemPtr& item : spinning_) end = std::min(end, item->due);
  if (end == UINT64_MAX || (next != nullptr && next->due <= end)) return false;
  progress_ = std::max(progress_, end);
  now_ = std::max(now_, progress_);
  return EndWaitsForValues();
}

void Scheduler::Run(Lock& lock, const ItemPtr& chosen) {
  const ItemPtr item = chosen;  // `chosen` may live in the map that is changed here
  runnable_.erase(KeyOf(*item));
  item->state = ItemState::kRunning;
  // What touches freed memory is reported and not done: it would be a crash.
  const bool usable = item->cancelled || hazards_.Execute(*item, allocations_);
  if (usable && !item->cancelled && item->work.brings_managed) {
    std::vector<Range> used = item->work.reads;
    used.insert(used.end(), item->work.writes.begin(), item->work.writes.end());
    allocations_.BringManaged(item->context->device, used);
  }
  if (item->work.effect && usable && (!item->cancelled || item->work.runs_after_error)) {
    const CUresult status = item->cancelled ? item->context->failed : CUDA_SUCCESS;
    if (item->work.host_side) {
      ++running_;
      lock.unlock();
      const bool in_another = std::exchange(t_in_program_function, true);
      item->work.effect(status);
      t_in_program_function = in_another;
      lock.lock();
      --running_;
    } else {
      item->work.effect(status);
    }
  }
  if (usable && !item->cancelled) item->context->printed += item->work.print;
  item->state = ItemState::kDone;
  if (item->work.trap && !item->cancelled) Fail(*item->context);
  for (Item* dependent : item->dependents) {
    dependent->finished_at = std::max(dependent->finished_at, item->finished_at);
    if (--dependent->unmet == 0) MakeRunnable(*dependent);
  }
  hazards_.Finish(*item);
  item->dependents.clear();
  item->needs.clear();
  item->work.effect = nullptr;
  pending_.erase(item->number);
  ++changes_;
  EndWaitsForValues();
  changed_.notify_all();
}

// A trap ends the context: what is pending in it will not run, and no longer spins.
void Scheduler::Fail(Context& context) {
  if (context.failed == CUDA_SUCCESS) context.failed = CUDA_ERROR_LAUNCH_FAILED;
  for (auto& [number, item] : pending_) {
    if (item->context == &context && item->state != ItemState::kRunning) item->cancelled = true;
  }
  const std::vector<ItemPtr> spinning = std::move(spinning_);
  spinning_.clear();
  for (const ItemPtr& item : spinning) {
    if (item->cancelled) {
      MakeRunnable(*item);
    } else {
      spinning_.push_back(item);
    }
  }
}

void Scheduler::Wait(Lock& lock, const std::vector<ItemPtr>& items) {
  while (!AllDone(items)) {
    const ItemPtr next = ChooseTowards(items);
    if (EndLongWait(next)) continue;
    if (next == nullptr) {
      WaitForOtherThreads(lock, items);
      continue;
    }
    if (!lazy()) progress_ = std::max(progress_, next->due);
    // The observable clock goes with what ran, and never behind the devices' own.
    now_ = std::max({now_, next->finished_at, lazy() ? uint64_t{0} : progress_});
    Run(lock, next);
  }
}

// The item to run next so that `items` get done; null when all that could is spinning, or being
// run by another thread.
ItemPtr Scheduler::ChooseTowards(const std::vector<ItemPtr>& items) {
  if (!lazy()) return runnable_.empty() ? nullptr : runnable_.begin()->second;
  std::unordered_set<Item*> seen;
  std::vector<ItemPtr> candidates;
  bool any_may_help = false;
  for (const ItemPtr& item : items) any_may_help |= CollectNeeds(item, &seen, &candidates);
  if (candidates.empty() && any_may_help) {
    for (const auto& [key, item] : runnable_) candidates.push_back(item);
  }
  if (candidates.empty()) return nullptr;
  return candidates[random_() % candidates.size()];
}

bool Scheduler::CollectNeeds(const ItemPtr& item, std::unordered_set<Item*>* seen,
                             std::vector<ItemPtr>* runnable) const {
  bool waits_for_value = false;
  std::vector<ItemPtr> open{item};
  while (!open.empty()) {
    const ItemPtr next = std::move(open.back());
    open.pop_back();
    if (next == nullptr || next->state == ItemState::kDone) continue;
    if (!seen->insert(next.get()).second) continue;
    if (next->state == ItemState::kRunnable) runnable->push_back(next);
    waits_for_value |= next->state == ItemState::kSpinning && next->work.until != nullptr;
    open.insert(open.end(), next->needs.begin(), next->needs.end());
  }
  return waits_for_value;
}

void Scheduler::WaitForOtherThreads(Lock& lock, const std::vector<ItemPtr>& items) {
  const uint64_t before = changes_;
  const auto moved = [&] { return changes_ != before || AllDone(items); };
  if (running_ > 0) {
    changed_.wait(lock, moved);
    return;
  }
  if (ThreadsOfThisProcess() > 1) {
    // Another thread may call CUDA, or write what an item waits for without telling anybody.
    const auto clock = [] { return std::chrono::system_clock::now(); };
    const auto end = clock() + std::chrono::milliseconds(TheSettings().patience_ms);
    const bool look = std::any_of(spinning_.begin(), spinning_.end(),
                                  [](const ItemPtr& item) { return item->work.until != nullptr; });
    while (clock() < end) {
      const auto next = clock() + std::chrono::milliseconds(1);
      if (changed_.wait_until(lock, look ? std::min(end, next) : end, moved)) return;
      if (EndWaitsForValues()) return;
    }
  }
  ReportDeadlock();
}

void Scheduler::NoteChange() {
  ++changes_;
  changed_.notify_all();
}

bool Scheduler::WaitForChange(Lock& lock, uint64_t before) {
  const auto patience = std::chrono::milliseconds(TheSettings().patience_ms);
  return changed_.wait_until(lock, std::chrono::system_clock::now() + patience, [&] {
    return changes_ != before;
  }) || running_ > 0;  // a function of the program's takes its time
}

void Scheduler::ReportStuck(const char* what) {
  std::fprintf(stderr, "cmp sim: deadlock: a CUDA call waits for %s, which does not come\n", what);
  std::abort();
}

void Scheduler::ReportDeadlock() const {
  std::fprintf(stderr, "cmp sim: deadlock: a CUDA call waits for work that cannot finish:\n");
  for (const ItemPtr& item : spinning_) {
    if (item->work.until) {
      std::fprintf(stderr, "cmp sim:   %s #%llu at %#lx\n", item->work.what,
                   static_cast<unsigned long long>(item->number),
                   static_cast<unsigned long>(item->work.reads.front().start));
      continue;
    }
    if (item->work.endless) {
      std::fprintf(stderr, "cmp sim:   %s #%llu never ends\n", item->work.what,
                   static_cast<unsigned long long>(item->number));
      continue;
    }
    std::fprintf(stderr,
                 "cmp sim:   %s #%llu (id %llu) spins until an item with id %llu is launched\n",
                 item->work.what, static_cast<unsigned long long>(item->number),
                 static_cast<unsigned long long>(item->work.id),
                 static_cast<unsigned long long>(item->work.spin_until_id));
  }
  std::abort();
}

std::vector<ItemPtr> Scheduler::PendingOf(const Context& context) const {
  std::vector<ItemPtr> items;
  for (const auto& [number, item] : pending_) {
    if (context.Covers(*item)) items.push_back(item);
  }
  return items;
}

std::vector<ItemPtr> Scheduler::PendingWith(const Context& context) const {
  std::vector<ItemPtr> items;
  for (const auto& [number, item] : pending_) {
    if (context.Covers(*item) || context.Includes(*item->context)) items.push_back(item);
  }
  return items;
}

size_t Scheduler::PendingCount(const Context* context) const {
  if (context == nullptr) return pending_.size();
  return PendingOf(*context).size();
}

}  // namespace cmp::sim
