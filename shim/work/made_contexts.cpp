#include "shim/work/made_contexts.h"

#include <new>

#include "core/base/lock.h"
#include "core/base/memory.h"
#include "shim/work/work_owner.h"

namespace cmp {

// All contexts, by what the program made.
struct MadeContext {
  ContextHandle handle = nullptr;  // nullptr: no context
  CUdevice primary_of = kNotPrimary;
  int endings = 0;     // calls on their way that may end it
  int references = 0;  // taken and not given up; some programs take one in each call
  uint64_t times = 0;  // grows whenever the program makes it, or retains it
};

namespace {

// Guards all that follows, but what is atomic.
constinit Mutex g_contexts_lock;

// Places for what the program made; more are mapped when these are all in use, and stay.
struct MadePlaces {
  MadeContext made[127];
  MadePlaces* more = nullptr;
};
static_assert(sizeof(MadePlaces) <= 4096, "a page");
constinit MadePlaces g_made;
constinit std::atomic<uint64_t> g_made_changes{0};
void NoteMadeChanged() { g_made_changes.fetch_add(1, std::memory_order_acq_rel); }

constinit int g_openings = 0;  // contexts that are getting a pool because of a submission

// The records of the contexts that have a pool: how many, and the sum of their addresses, which is
// the address if there is one.
constinit size_t g_open_count = 0;
constinit uintptr_t g_open_sum = 0;

// REQUIRES for all that follow: g_contexts_lock held

// The first place for which is(made), or nullptr.
template <typename Condition>
MadeContext* FindPlace(Condition is) {
  for (MadePlaces* places = &g_made; places != nullptr; places = places->more) {
    for (MadeContext& made : places->made) {
      if (is(made)) return &made;
    }
  }
  return nullptr;
}

// A place without a context, nullptr when memory is exhausted.
MadeContext* FreePlace() {
  const auto is_free = [](const MadeContext& made) { return made.handle == nullptr; };
  if (MadeContext* place = FindPlace(is_free)) return place;
  void* memory = MapPages(sizeof(MadePlaces));
  if (memory == nullptr) return nullptr;
  auto* more = new (memory) MadePlaces;
  more->more = g_made.more;
  g_made.more = more;
  return &more->made[0];
}

// The entry of a context, nullptr if there is none.
MadeContext* FindMade(ContextHandle handle) {
  if (handle == nullptr) return nullptr;
  return FindPlace([&](const MadeContext& made) { return made.handle == handle; });
}

// That of a device's primary context.
MadeContext* FindPrimary(CUdevice device) {
  return FindPlace(
      [&](const MadeContext& made) { return made.handle != nullptr && made.primary_of == device; });
}

// A context that the program made counts although it has no pool: its streams are not the only
// other one's.
void DecideOwnerOfAll() {
  WorkOwner owner = g_open_count == 0 ? WorkOwner::None() : WorkOwner::OneOfSeveral();
  if (g_open_count == 1) {
    auto& only = *reinterpret_cast<ContextWork*>(g_open_sum);
    const auto is_another = [&](const MadeContext& made) {
      return made.handle != nullptr && !only.IsOf(made.handle);
    };
    if (FindPlace(is_another) == nullptr) owner = WorkOwner::Of(only);
  }
  g_owner_of_all.store(owner, std::memory_order_release);
}

// Contexts without a record are not counted: nothing is known of their work.
void CountPooled(const ContextWork& work, int change) {
  if (&work == &g_no_work) return;
  const auto by = static_cast<uintptr_t>(change);
  g_open_count += by;
  g_open_sum += by * reinterpret_cast<uintptr_t>(&work);
}

}  // namespace

void ContextIsThere(ContextHandle handle, CUdevice primary_of) {
  Held held(g_contexts_lock);
  MadeContext* place = FindPlace([&](const MadeContext& made) {
    return made.handle != nullptr &&
           (primary_of == kNotPrimary ? made.handle == handle : made.primary_of == primary_of);
  });
  if (place == nullptr) place = FreePlace();
  if (place == nullptr) return;
  if (primary_of == kNotPrimary) place->endings = place->references = 0;
  place->handle = handle;
  place->primary_of = primary_of;
  ++place->references;
  ++place->times;
  NoteMadeChanged();
  DecideOwnerOfAll();
}

ContextHandle PrimaryMade(CUdevice device) {
  Held held(g_contexts_lock);
  const MadeContext* found = FindPrimary(device);
  return found == nullptr ? nullptr : found->handle;
}

bool PrimaryIsReleased(CUdevice device) {
  Held held(g_contexts_lock);
  const MadeContext* found = FindPrimary(device);
  return found == nullptr || found->references <= 0;
}

// A page at a time: who visits may take any lock.
void ForEachMadeContext(void (*visit)(ContextHandle handle)) {
  for (const MadePlaces* places = &g_made; places != nullptr;) {
    MadePlaces now;
    {
      Held held(g_contexts_lock);
      now = *places;
    }
    for (const MadeContext& made : now.made) {
      if (made.handle != nullptr) visit(made.handle);
    }
    places = now.more;
  }
}

uint64_t MadeContextsChanges() { return g_made_changes.load(std::memory_order_acquire); }

// ---- A context ends, or gets a pool: one of the two

ContextEnding::ContextEnding(ContextHandle handle) {
  {
    Held held(g_contexts_lock);
    made_ = FindMade(handle);
    if (made_ == nullptr) return;
    ++made_->endings;
    times_ = made_->times;
  }
  for (Pause pause;; pause.Wait()) {
    Held held(g_contexts_lock);
    if (g_openings == 0) return;
  }
}

ContextEnding::~ContextEnding() {
  if (made_ == nullptr) return;
  Held held(g_contexts_lock);
  const bool same = made_->times == times_;
  if (!same && made_->primary_of == kNotPrimary) return;  // another thread's new context
  --made_->endings;
  // Retained meanwhile, it may be alive again.
  if (ended_ && same) *made_ = {.times = times_ + 1};
  NoteMadeChanged();  // who came meanwhile was turned away
  DecideOwnerOfAll();
}

bool ContextEnding::GivesUpLast() {
  if (made_ == nullptr) return true;
  Held held(g_contexts_lock);
  return --made_->references <= 0;
}

void ContextEnding::GaveUpNone() {
  if (made_ == nullptr) return;
  Held held(g_contexts_lock);
  ++made_->references;
}

ContextOpening::ContextOpening(ContextHandle handle) {
  Held held(g_contexts_lock);
  const MadeContext* made = FindMade(handle);
  allowed_ = made != nullptr && made->endings == 0;
  if (allowed_) ++g_openings;
}

ContextOpening::~ContextOpening() {
  if (!allowed_) return;
  Held held(g_contexts_lock);
  --g_openings;
}

// ---- Which have a pool

void ContextHasPool(ContextWork& work) {
  Held held(g_contexts_lock);
  CountPooled(work, 1);
  DecideOwnerOfAll();
}

void ContextHasNoPool(ContextWork& work) {
  Held held(g_contexts_lock);
  CountPooled(work, -1);
  NoteMadeChanged();  // a reset one may be used again
  DecideOwnerOfAll();
}

void ForgetContexts() {
  new (&g_contexts_lock) Mutex;
  g_open_count = 0;
  g_open_sum = 0;
  FindPlace([](MadeContext& made) {
    made = {};
    return false;
  });
  g_openings = 0;
  g_owner_of_all.store(WorkOwner::None(), std::memory_order_release);
}

}  // namespace cmp
