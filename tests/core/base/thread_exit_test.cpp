#include "core/base/thread_exit.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <vector>

#include "pool_fixture.h"

namespace cmp {
namespace {

using test::OnAnotherThread;

// A program that has used up the system's thread-specific keys.
class NoKeys {
 public:
  NoKeys() {
    pthread_key_t key;
    while (pthread_key_create(&key, nullptr) == 0) keys_.push_back(key);
  }
  ~NoKeys() {
    for (const pthread_key_t key : keys_) pthread_key_delete(key);
  }
  NoKeys(const NoKeys&) = delete;
  NoKeys& operator=(const NoKeys&) = delete;

 private:
  std::vector<pthread_key_t> keys_;
};

int g_calls = 0;
bool g_armed_again = true;

TEST(ThreadExitTest, IsCalledOnceForEachThreadThatArmedIt) {
  static constinit ThreadExitHook hook([] { ++g_calls; });
  g_calls = 0;
  for (int i = 1; i <= 3; ++i) {
    OnAnotherThread([] { EXPECT_TRUE(hook.Arm() && hook.Arm()); });
    EXPECT_EQ(g_calls, i);
  }
  OnAnotherThread([] {});
  EXPECT_EQ(g_calls, 3);
}

TEST(ThreadExitTest, IsCalledWhereThereAreNoKeys) {
  static constinit ThreadExitHook hook([] { ++g_calls; });
  static constinit ThreadExitHook again([] { g_armed_again = again.Arm(); });
  const NoKeys no_keys;
  g_calls = 0;
  for (int i = 1; i <= 3; ++i) {
    OnAnotherThread([] { EXPECT_TRUE(again.Arm() && hook.Arm() && hook.Arm()); });
    EXPECT_EQ(g_calls, i);
    EXPECT_FALSE(g_armed_again) << "it may come too late";
  }
}

// Found by measuring: 400 threads one after the other made 400 caches and filled each.
TEST(ThreadExitTest, WithoutKeysNothingIsStrandedInCachesOfThreadsThatEnded) {
  const NoKeys no_keys;
  test::TestPool t;
  for (int i = 0; i < 50; ++i) {
    OnAnotherThread([&] { EXPECT_TRUE(t.Free(t.Alloc(1000))); });
  }
  EXPECT_EQ(t.pool->statistics().process().thread_caches.Get(), 1u);
  EXPECT_EQ(t.context->global().ready_bytes(), 1024u);
  EXPECT_EQ(t.device.allocate_calls(), 1u);
}

// Destroyed after the pool's own hook has run: what it frees goes where others find it.
struct FreesLate {
  test::TestPool* pool = nullptr;
  Block* block = nullptr;
  ~FreesLate() {
    if (block == nullptr) return;
    EXPECT_TRUE(pool->Free(block));
  }
};
thread_local FreesLate t_frees_late;

TEST(ThreadExitTest, WithoutKeysALateFreeIsNotStranded) {
  const NoKeys no_keys;
  test::TestPool t;
  OnAnotherThread([&] {
    t_frees_late.pool = &t;  // constructed before the hook is armed
    t_frees_late.block = t.Alloc(1000);
  });
  EXPECT_EQ(t.context->global().ready_bytes(), 1024u);
  EXPECT_EQ(t.context->accounts().live(), 0u);
}

}  // namespace
}  // namespace cmp
