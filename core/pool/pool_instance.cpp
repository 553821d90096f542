#include "core/pool/pool_instance.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

namespace cmp {

namespace {

constinit Mutex g_process_lock;
constinit std::atomic<bool> g_exit_watched{false};
constinit bool g_fork_watched = false;  // written under g_process_lock
using Hook = void (*)();
constinit Hook g_forked = nullptr;  // likewise
constinit std::atomic<Hook> g_on_exit{nullptr};

void ForkedChild() {
  // The lock may have been held by a thread that the child does not have.
  new (&g_process_lock) Mutex;
  g_hit_pool.store(nullptr, std::memory_order_release);
  g_hit_page_locked.store(nullptr, std::memory_order_release);
  g_page_locked.store(nullptr, std::memory_order_release);
  g_pool.store(nullptr, std::memory_order_release);
  g_started.store(nullptr, std::memory_order_release);
  Pool::ForgetThread();
  if (g_forked != nullptr) g_forked();
}

}  // namespace

Pool* StartPool(const PoolStart& start) {
  if (Pool* pool = g_started.load(std::memory_order_acquire)) return pool;
  const Uncancelled uncancelled;  // what is read and opened below
  Held held(g_process_lock);
  if (Pool* pool = g_started.load(std::memory_order_relaxed)) return pool;
  if (!g_fork_watched) {
    g_fork_watched = true;
    g_forked = start.forked;
    g_on_exit.store(start.exiting, std::memory_order_relaxed);
    pthread_atfork(nullptr, nullptr, &ForkedChild);
  }
  const Options options = start.read_options();
  void* page = MapPages(Pool::StatisticsBytes(options));
  if (page == nullptr) return nullptr;
  Pool* pool =
      Pool::Create(options, page, static_cast<uint64_t>(getpid()), ProgramName(), *start.host);
  if (pool == nullptr) return nullptr;
  if (start.made != nullptr) start.made(*pool);
  // In this order: who finds a started pool and no pool takes it for one that is off.
  if (options.mode == Mode::kPool) {
    g_pool.store(pool, std::memory_order_release);
    g_page_locked.store(pool->page_locked(), std::memory_order_release);
    if (options.trace == nullptr) {
      g_hit_page_locked.store(pool->page_locked(), std::memory_order_release);
      g_hit_pool.store(pool, std::memory_order_release);
    }
  }
  g_started.store(pool, std::memory_order_release);
  return pool;
}

void WatchExit() {
  if (g_exit_watched.load(std::memory_order_relaxed)) return;
  if (g_exit_watched.exchange(true, std::memory_order_relaxed)) return;
  atexit([] {
    if (const Hook exiting = g_on_exit.load(std::memory_order_relaxed)) exiting();
    if (Pool* pool = g_started.load(std::memory_order_acquire)) pool->ageing().Stop();
    g_exiting.store(true, std::memory_order_release);
    g_hit_pool.store(nullptr, std::memory_order_release);
    g_hit_page_locked.store(nullptr, std::memory_order_release);
    g_page_locked.store(nullptr, std::memory_order_release);
    g_pool.store(nullptr, std::memory_order_release);  // what the program still calls is real
  });
}

const char* ProgramName() { return program_invocation_short_name; }

}  // namespace cmp
