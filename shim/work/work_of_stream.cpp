#include "shim/work/work_of_stream.h"

#include "shim/shake/shake.h"
#include "shim/state/aside.h"
#include "shim/work/made_contexts.h"

namespace cmp {

namespace {

// Where streams belong, as this thread found out; valid while none of them may have ended since.
// acq_rel: who finds several contexts in g_owner_of_all also finds the epoch from before that.
struct KnownStreams {
  struct Entry {
    StreamName stream;
    ContextWork* work;
  };
  static constexpr size_t kEntries = 8;
  uint64_t epoch;  // of all entries
  Entry entries[kEntries];

  Entry& Of(StreamName stream) { return entries[(stream >> 4 ^ stream >> 9) % kEntries]; }
  void Remember(StreamName stream, uint64_t now, ContextWork& work) {
    if (epoch != now) *this = {now, {}};
    Of(stream) = {stream, &work};
  }
};
thread_local constinit KnownStreams t_known = {};
constinit std::atomic<uint64_t> g_stream_epoch{1};

// As far as this all contexts that the program made have got their pool (MadeContextsChanges).
constinit std::atomic<uint64_t> g_opened_changes{0};

// The owner of a context's work, which gets a pool; one of several if it gets none (a green one).
WorkOwner OpenOwner(const Driver& driver, ContextHandle context) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr || IsAside()) return WorkOwner::OneOfSeveral();
  const Uncancelled uncancelled;
  const ContextOpening opening(context);
  if (!opening.allowed()) return WorkOwner::OneOfSeveral();
  const bool current = CurrentContext(driver) == context;
  if (!current && driver.push_current(static_cast<CUcontext>(context)) != CUDA_SUCCESS) {
    return WorkOwner::OneOfSeveral();
  }
  const HeldContext opened = ServingContext(*pool, driver);
  CUcontext popped = nullptr;
  if (!current) driver.pop_current(&popped);
  return opened ? WorkOwner::Of(WorkIn(*opened)) : WorkOwner::OneOfSeveral();
}

[[gnu::noinline]] WorkOwner FindCurrentOwner() {
  const Driver* driver = LoadedDriver();
  if (driver == nullptr) return WorkOwner::None();
  const ContextHandle current = CurrentContext(*driver);
  const WorkOwner owner = OwnerOfContext(current);
  if (!owner.IsNone()) [[likely]]
    return owner;
  if (current == nullptr) return owner;  // the real call will say so
  return OpenOwner(*driver, current);
}

// Asks the driver, and remembers the answer if it is a context that has a pool by itself.
[[gnu::noinline]] WorkOwner AskForOwner(StreamName stream, uint64_t epoch) {
  const Driver* driver = LoadedDriver();
  CUcontext context = nullptr;
  if (driver == nullptr ||
      driver->stream_context(reinterpret_cast<CUstream>(stream), &context) != CUDA_SUCCESS) {
    return WorkOwner::None();  // not a stream: the real call will say so
  }
  const WorkOwner owner = OwnerOfContext(context);
  if (owner.IsNone()) return OpenOwner(*driver, context);
  t_known.Remember(stream, epoch, owner.work());
  return owner;
}

}  // namespace

WorkOwner FindOwner(StreamName stream) {
  if (IsOfCurrentContext(stream)) return FindCurrentOwner();
  const uint64_t epoch = StreamEpoch();
  const KnownStreams::Entry& known = t_known.Of(stream);
  if (known.stream == stream && t_known.epoch == epoch) return WorkOwner::Of(*known.work);
  return AskForOwner(stream, epoch);
}

// Two threads may do it at once: each sees all of them opened.
void OpenAllContexts() {
  const uint64_t made = MadeContextsChanges();
  if (made == g_opened_changes.load(std::memory_order_acquire) || LoadedDriver() == nullptr) return;
  ForEachMadeContext([](ContextHandle handle) {
    if (OwnerOfContext(handle).IsNone()) OpenOwner(*LoadedDriver(), handle);
  });
  g_opened_changes.store(made, std::memory_order_release);
}

void StreamEnds(CUstream stream) {
  if (IsDefaultStream(stream)) return;
  ShakeStreamEnds(reinterpret_cast<StreamName>(stream));
  ForgetStreams();
  ForEachWork([&](ContextWork& work) { work.StreamEnds(reinterpret_cast<StreamName>(stream)); });
}

void SomeStreamsEnd() {
  ShakeStreamEnds(kSeveralStreams);
  ForgetStreams();
  ForEachWork([](ContextWork& work) { work.AnyStreamEnds(); });
}

void ForgetStreams() { g_stream_epoch.fetch_add(1, std::memory_order_acq_rel); }
uint64_t StreamEpoch() { return g_stream_epoch.load(std::memory_order_acquire); }

}  // namespace cmp
