// A pool over a fake driver with the shim as its host: what was submitted, what is owed, and what a
// free comes to (shim/work/work_state.h, shim/work/free_sync.h).
#ifndef CMP_TESTS_SHIM_WORK_FIXTURE_H_
#define CMP_TESTS_SHIM_WORK_FIXTURE_H_

#include <gtest/gtest.h>

#include "core/pool/pool_instance.h"
#include "fake_driver.h"
#include "pool_fixture.h"
#include "shim/service/pool_host.h"
#include "shim/state/captures.h"
#include "shim/work/free_sync.h"
#include "shim/work/host_wait.h"
#include "shim/work/owed.h"

namespace cmp {

using test::FakeDriver;
using test::OnAnotherThread;
using test::TestPool;

inline constexpr StreamName kA = 0xa000;
inline constexpr StreamName kB = 0xb000;
inline constexpr StreamName kC = 0xc000;

class WorkTest : public testing::Test {
 protected:
  explicit WorkTest(FreeSync free_sync = FreeSync::kOrder)
      : pool_(With(free_sync), test::FakeDevice::kPlenty, kShimHost) {
    g_driver = &driver_.table();
    g_pool = pool_.pool;
    FakeDriver::SetCurrent(pool_.identity.handle);
  }
  ~WorkTest() override {
    pool_.pool->ForEachContext([&](ContextPool& context) { pool_.pool->DropContext(context); });
    ForgetOwed();  // contexts of a process stay, those of a test do not
    EXPECT_FALSE(AnyDebt()) << "what ended contexts owed is counted still";
    EXPECT_EQ(driver_.errors, 0u) << "an event was misused";
    EXPECT_FALSE(g_captures.UnderWay());
    g_pool = nullptr;
    g_driver = nullptr;
  }

  ContextPool& context() { return *pool_.context; }
  Fences& fences() { return context().fences(); }
  ContextWork& work() { return WorkIn(context()); }
  static void Submit(StreamName stream, bool overtakes = false) {
    const Submission submission(stream, overtakes);
  }
  Settlement Free() { return FreeIn(context()); }
  // Of a block that no test looks at.
  Settlement FreeIn(ContextPool& in) {
    Block block;
    block.owner_context = &in;
    return SettleFree(*pool_.pool, driver_.table(), *block.owner());
  }
  // A wait of the program's; `meanwhile` happens while it is on its way.
  template <typename Meanwhile>
  void Synchronize(StreamName stream, Meanwhile meanwhile) {
    HostWait wait(stream);
    meanwhile();
    driver_.Finish();
    wait.Done(CUDA_SUCCESS);
  }
  void Synchronize(StreamName stream = kSeveralStreams) {
    Synchronize(stream, [] {});
  }
  bool NothingIsUnfinished() { return Free().stamp == kReady; }

  FakeDriver driver_;
  TestPool pool_;

 private:
  static Options With(FreeSync free_sync) {
    Options options;
    options.free_sync = free_sync;
    return options;
  }
};

class NoneTest : public WorkTest {
 protected:
  NoneTest() : WorkTest(FreeSync::kNone) {}
};

class AutoTest : public WorkTest {
 protected:
  AutoTest() : WorkTest(FreeSync::kAuto) {
    work().Begin(true);  // the pool was not there yet when its context was
    g_tracks_visible = true;
    EXPECT_EQ(Free().stamp, kReady) << "what came before the pool may be visible";
    EXPECT_EQ(process().wait_unknown.Get(), 1u);
    waits_ = driver_.waits;
  }
  static void SubmitVisible(StreamName stream, Visible visible) {
    const Submission submission(stream, false, visible);
  }
  ProcessCounters& process() { return pool_.pool->statistics().process(); }
  size_t Waits() const { return driver_.waits - waits_; }

  size_t waits_ = 0;
};

class WaitTest : public WorkTest {
 protected:
  WaitTest() : WorkTest(FreeSync::kWait) {}
};

}  // namespace cmp

#endif  // CMP_TESTS_SHIM_WORK_FIXTURE_H_
