#include "shim/record/report_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/options.h"
#include "core/library/pool_face.h"
#include "core/pool/pool_instance.h"
#include "shim/lookup/later_functions.h"
#include "shim/record/run.h"
#include "shim/record/shake_counts.h"
#include "shim/state/aside.h"
#include "shim/state/settings.h"

namespace cmp {

namespace {

using Count = unsigned long long;

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}
double Milliseconds(uint64_t ns) { return static_cast<double>(ns) / 1e6; }
double Mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); }

const char* NameOf(Mode mode) {
  switch (mode) {
    case Mode::kPool:
      return "pool";
    case Mode::kObserve:
      return "observe";
    case Mode::kOff:
      break;
  }
  return "off";
}

// For what frees waited, the words of core/base/statistics.h.
void AddReasons(Text& text, const ProcessCounters& process) {
#define CMP_ADD(name, meaning) \
  if (process.name.Get() != 0) text.Add("cmp:     %llu %s\n", Count{process.name.Get()}, meaning);
  CMP_WAIT_REASONS(CMP_ADD)
#undef CMP_ADD
}

// What `lines` holds, each with a newline, as a JSON list.
void AddJsonLines(Text& text, const char* lines) {
  const char* separator = "";
  text.Add("[");
  while (const char* end = strchr(lines, '\n')) {
    text.Add("%s", separator);
    text.AddJsonString(lines, static_cast<size_t>(end - lines));
    separator = ", ";
    lines = end + 1;
  }
  text.Add("]");
}

void AddJsonStringOrNull(Text& text, const char* value) {
  if (value[0] == '\0') {
    text.Add("null");
  } else {
    text.AddJsonString(value);
  }
}

void AddJsonRun(Text& text, const StatisticsRun& run) {
  const uint32_t gpus = run.gpu_count.load(std::memory_order_acquire);  // before its other fields
  text.Add(",\n  \"run\": {\n    \"command\": ");
  text.AddJsonString(run.command);
  text.Add(",\n    \"host\": ");
  AddJsonStringOrNull(text, run.host);
  const size_t digits = strspn(run.rank, "0123456789");
  const bool is_number = digits != 0 && digits < 10 && run.rank[digits] == '\0';
  text.Add(",\n    \"rank\": ");
  if (is_number) {
    text.Add("%llu", Count{NumberAt(run.rank)});
  } else {
    text.Add("null");
  }
  const auto second = static_cast<time_t>(run.begin_unix_ns / 1000000000);
  tm date;
  char begin[40] = "";
  if (gmtime_r(&second, &date) != nullptr) {
    strftime(begin, sizeof(begin), "%Y-%m-%dT%H:%M:%SZ", &date);
  }
  text.Add(",\n    \"begin\": \"%s\",\n    \"nanoseconds\": %llu", begin,
           Count{UnixNs() - run.begin_unix_ns});
  text.Add(",\n    \"driver\": ");
  AddJsonStringOrNull(text, run.driver);
  text.Add(",\n    \"cuda\": ");
  const uint32_t cuda = run.cuda_version.load(std::memory_order_relaxed);
  if (cuda == 0) {
    text.Add("null");
  } else {
    text.Add("\"%u.%u\"", cuda / 1000, cuda % 1000 / 10);
  }
  text.Add(",\n    \"gpus\": [");
  for (uint32_t i = 0; i < gpus; ++i) {
    text.Add("%s", i == 0 ? "" : ", ");
    text.AddJsonString(run.gpus[i]);
  }
  text.Add("],\n    \"settings\": ");
  AddJsonLines(text, run.settings);
  text.Add("\n  }");
}

void AddJsonHead(Text& text, const char* mode, const StatisticsRun& run) {
  text.Add("%s %d,\n  \"version\": \"%s\",\n  \"program\": ", kJsonBeginning, kJsonSchemaVersion,
           Version());
  text.AddJsonString(ProgramName());
  text.Add(",\n  \"pid\": %d,\n  \"mode\": \"%s\"", static_cast<int>(getpid()), mode);
  AddJsonRun(text, run);
}

void AddJsonTier(Text& text, const char* separator, size_t bytes, const TierTotals& totals) {
  text.Add("%s    {\"bytes\": %llu, \"requests\": %llu", separator, Count{bytes},
           Count{totals.requests()});
#define CMP_ADD(name, meaning) text.Add(", \"" #name "\": %llu", Count{totals.name});
  CMP_TIER_COUNTERS(CMP_ADD)
#undef CMP_ADD
  text.Add(", \"live_blocks\": %llu}", Count{totals.live_blocks()});
}

// visit(device, what its contexts hold), for every device that has one.
template <typename Visitor>
void ForEachDevice(Pool& pool, Visitor visit) {
  const int end = DeviceEnd(pool);
  for (int device = 0; device < end; ++device) {
    const DeviceStatistics held = StatisticsOfDevice(pool, device);
    if (held.contexts != 0) visit(device, held);
  }
}

// Where it ran, on what and for how long.
void AddRun(Text& text, const StatisticsRun& run) {
  text.Add("cmp:   on %s", run.host[0] != '\0' ? run.host : "a host without a name");
  if (run.rank[0] != '\0') text.Add(", rank %s", run.rank);
  const uint32_t gpus = run.gpu_count.load(std::memory_order_acquire);
  if (gpus != 0) text.Add(", %s", run.gpus[0]);
  if (gpus > 1) text.Add(" and %u more", gpus - 1);
  if (run.driver[0] != '\0') text.Add(", driver %s", run.driver);
  const uint32_t cuda = run.cuda_version.load(std::memory_order_relaxed);
  if (cuda != 0) text.Add(", CUDA %u.%u", cuda / 1000, cuda % 1000 / 10);
  text.Add("; ran %.2f s\n", static_cast<double>(UnixNs() - run.begin_unix_ns) / 1e9);
}

// Where the memory limit costs more than a fiftieth of the run, and a millisecond (as in
// cmp-preload report).
void AddAdvice(Text& text, Pool& pool) {
  const ProcessCounters& process = pool.statistics().process();
  const TierTotals totals = pool.statistics().Totals();
  const uint64_t waited = process.bound_wait_ns.Get();
  // Its own, where most of the real frees are of idle blocks.
  const bool released = totals.blocks_released > totals.real_frees;
  const uint64_t freed = released ? process.real_free_ns.Get() : 0;
  const uint64_t ran = UnixNs() - pool.statistics().header()->run.begin_unix_ns;
  if (waited + freed < ran / 50 || waited + freed < 1000000) return;
  text.Add(
      "cmp:   the bound took %.2f ms in waits and %.2f ms in real frees: set a larger CMP_RESERVE, "
      "as 1.5x+1G (cmp-preload tune measures what it gains)\n",
      Milliseconds(waited), Milliseconds(freed));
}

void AddDevices(Text& text, Pool& pool) {
  if (DeviceEnd(pool) <= 1) return;
  ForEachDevice(pool, [&](int device, const DeviceStatistics& held) {
    text.Add("cmp:   device %d, MiB: live %.1f, ready %.1f, retired %.1f; live peak %.1f\n", device,
             Mebibytes(held.live), Mebibytes(held.ready), Mebibytes(held.retired),
             Mebibytes(held.live_peak));
  });
}

void AddJsonShake(Text& text, const ShakeCounts& shake) {
  if (!shake.on.load(std::memory_order_relaxed)) return;
  text.Add(",\n  \"shake\": {\n    \"sites\": %llu,\n    \"executions\": %llu",
           Count{shake.sites.Get()}, Count{shake.executions.Get()});
  text.Add(",\n    \"holds\": %llu,\n    \"effective\": %llu", Count{shake.holds.Get()},
           Count{shake.effective.Get()});
  text.Add(",\n    \"let_go_by_timer\": %llu,\n    \"held_milliseconds\": %llu\n  }",
           Count{shake.let_go_by_timer.Get()}, Count{shake.held_ns.Get() / 1000000});
}

// Page-locked memory: what was kept, and where nothing was, what the real calls took.
void AddPageLocked(Text& text, const ProcessCounters& process) {
  const Count requests = process.host_requests.Get();
  const Count real = process.host_real_malloc_calls.Get();
  if (requests != 0) {
    const Count hits = process.host_thread_cache_hits.Get() + process.host_global_pool_hits.Get();
    text.Add(
        "cmp:   page-locked memory: %llu allocations, %llu (%.1f%%) without a real call; MiB: "
        "reserved %.1f, at most %.1f\n",
        requests, hits, Percent(hits, requests), Mebibytes(process.host_reserved_bytes.Get()),
        Mebibytes(process.host_reserved_peak_bytes.Get()));
  }
  if (real != 0) {
    text.Add(
        "cmp:   page-locked memory, real calls: %llu allocations in %.2f ms, %llu frees in "
        "%.2f ms%s\n",
        real, Milliseconds(process.host_real_malloc_ns.Get()),
        Count{process.host_real_free_calls.Get()}, Milliseconds(process.host_real_free_ns.Get()),
        requests == 0 && real >= 100 ? " (CMP_HOST=on keeps it)" : "");
  }
  if (process.host_bypassed.Get() != 0) {
    text.Add("cmp:   page-locked memory was not kept: a thread has a NUMA policy\n");
  }
}

void AddJsonDevices(Text& text, Pool& pool) {
  const char* separator = "\n";
  text.Add(",\n  \"devices\": [");
  ForEachDevice(pool, [&](int device, const DeviceStatistics& held) {
    text.Add(
        "%s    {\"device\": %d, \"contexts\": %u, \"live_block_bytes\": %llu, \"ready_bytes\": "
        "%llu, \"retired_bytes\": %llu, \"reserved_bytes\": %llu, \"live_peak_bytes\": %llu, "
        "\"bound_bytes\": %llu}",
        separator, device, held.contexts, Count{held.live}, Count{held.ready}, Count{held.retired},
        Count{held.reserved}, Count{held.live_peak}, Count{held.bound});
    separator = ",\n";
  });
  text.Add("\n  ]");
}

}  // namespace

void AddSummary(Text& text, Pool& pool) {
  if (pool.options().mode == Mode::kOff) {
    text.Add("cmp: %s (pid %d), mode off: nothing was served or counted\n", ProgramName(),
             static_cast<int>(getpid()));
    return;
  }
  const CudaMemoryPoolStatistics s = StatisticsOf(pool);
  const ProcessCounters& process = pool.statistics().process();
  const Count hits = s.thread_cache_hits + s.global_pool_hits;
  text.Add("cmp: %s (pid %d), mode %s: %llu allocations, %llu (%.1f%%) without a real call\n",
           ProgramName(), static_cast<int>(getpid()), NameOf(pool.options().mode),
           Count{s.requests}, hits, Percent(hits, s.requests));
  AddRun(text, pool.statistics().header()->run);
  if (const char* reason = AsideReason()) text.Add("cmp:   every call was real: %s\n", reason);
  for (int i = 0; const char* name = LaterFunction(i); ++i) {
    text.Add("cmp:   %s of a later CUDA was looked up: what it does is not seen\n", name);
  }
  const bool pooled = pool.options().mode == Mode::kPool;
  if (pooled) {
    text.Add("cmp:   thread cache %llu, global pool %llu, refills %llu, oversized or real %llu\n",
             Count{s.thread_cache_hits}, Count{s.global_pool_hits}, Count{s.refills},
             Count{s.oversized});
  }
  text.Add("cmp:   real calls: %llu allocations in %.2f ms, %llu frees in %.2f ms; avoided: %llu\n",
           Count{s.real_malloc_calls}, Milliseconds(process.real_malloc_ns.Get()),
           Count{s.real_free_calls}, Milliseconds(process.real_free_ns.Get()),
           Count{s.real_calls_avoided});
  if (!pooled && process.allocating_ns.Get() != 0) {
    text.Add(
        "cmp:   a thread at least was inside them for %.2f ms; submissions beside them: %llu, "
        "%.2f ms (a sum over threads)\n",
        Milliseconds(process.allocating_ns.Get()), Count{process.held_up_calls.Get()},
        Milliseconds(process.held_up_ns.Get()));
  }
  if (pooled) {
    text.Add("cmp:   frees that waited for the GPU: %llu, %.2f ms (times are sums over threads)\n",
             Count{process.wait_calls.Get()}, Milliseconds(process.wait_ns.Get()));
    if (process.bound_waits.Get() != 0) {
      text.Add("cmp:     %llu to keep the bound of CMP_RESERVE\n",
               Count{process.bound_waits.Get()});
    }
    AddReasons(text, process);
    AddAdvice(text, pool);
  }
  if (process.skipped_waits.Get() != 0) {
    text.Add(
        "cmp:   frees that did not wait for their own work: %llu; the real ones would have, for "
        "%.0f to "
        "%.0f ms (an estimate)\n",
        Count{process.skipped_waits.Get()}, Milliseconds(process.skipped_wait_min_ns.Get()),
        Milliseconds(process.skipped_wait_max_ns.Get()));
  }
  const Count paid = process.paid_by_queries.Get() + process.paid_by_destruction.Get() +
                     process.paid_by_other_contexts.Get() + process.paid_by_thread_ends.Get() +
                     process.paid_at_exit.Get();
  if (paid != 0) {
    text.Add("cmp:   of those, waited for later: %llu, %.2f ms\n", paid,
             Milliseconds(process.paid_ns.Get()));
  }
  if (process.fences.Get() + process.order_waits.Get() != 0) {
    text.Add("cmp:   fences recorded %llu, asked about %llu times; streams ordered %llu times\n",
             Count{process.fences.Get()}, Count{process.fence_queries.Get()},
             Count{process.order_waits.Get()});
  }
  text.Add(
      "cmp:   MiB: live %.1f (asked for %.1f), ready %.1f, retired %.1f, reserved %.1f; peaks: "
      "live %.1f, reserved %.1f\n",
      Mebibytes(s.live_block_bytes), Mebibytes(s.live_requested_bytes), Mebibytes(s.ready_bytes),
      Mebibytes(s.retired_bytes), Mebibytes(s.reserved_bytes), Mebibytes(s.live_peak_bytes),
      Mebibytes(s.reserved_peak_bytes));
  AddDevices(text, pool);
  AddPageLocked(text, process);
  if (process.regretted_releases.Get() != 0) {
    text.Add(
        "cmp:   blocks released for CMP_RESERVE and soon allocated again: %llu; it grew by up to "
        "%.1f MiB\n",
        Count{process.regretted_releases.Get()}, Mebibytes(process.reserve_extra_peak_bytes.Get()));
  }
  if (process.async_allocations.Get() != 0) {
    text.Add(
        "cmp:   stream-ordered allocations: %llu; pools of the driver's that kept memory: %llu, up "
        "to %.1f MiB\n",
        Count{process.async_allocations.Get()}, Count{process.kept_pools.Get()},
        Mebibytes(process.kept_peak_bytes.Get()));
  }
  const Count wrong = process.double_frees.Get();
  if (wrong != 0) text.Add("cmp:   double frees: %llu\n", wrong);
  if (s.failed_allocations != 0 || process.out_of_memory_rescues.Get() != 0) {
    text.Add("cmp:   allocations that failed: %llu, that releases saved: %llu\n",
             Count{s.failed_allocations}, Count{process.out_of_memory_rescues.Get()});
  }
}

void AddJsonReport(Text& text, Pool& pool) {
  const CudaMemoryPoolStatistics s = StatisticsOf(pool);
  AddJsonHead(text, NameOf(pool.options().mode), pool.statistics().header()->run);
  text.Add(",\n  \"reached\": true,\n  \"aside\": ");
  if (const char* reason = AsideReason()) {
    text.AddJsonString(reason);
  } else {
    text.Add("null");
  }
  text.Add(",\n  \"later_functions\": [");
  for (int i = 0; const char* name = LaterFunction(i); ++i) {
    text.Add("%s", i == 0 ? "" : ", ");
    text.AddJsonString(name);
  }
  text.Add("]");
  text.Add(",\n  \"totals\": {\n    \"requests\": %llu", Count{s.requests});
  const TierTotals totals = pool.statistics().Totals();
#define CMP_ADD(name, meaning) text.Add(",\n    \"" #name "\": %llu", Count{totals.name});
  CMP_TIER_COUNTERS(CMP_ADD)
#undef CMP_ADD
  const double hit_rate = s.requests == 0
                              ? 0
                              : static_cast<double>(s.thread_cache_hits + s.global_pool_hits) /
                                    static_cast<double>(s.requests);
  text.Add(",\n    \"live_blocks\": %llu,\n    \"live_requested_bytes\": %llu",
           Count{s.live_blocks}, Count{s.live_requested_bytes});
  text.Add(",\n    \"live_block_bytes\": %llu,\n    \"ready_bytes\": %llu",
           Count{s.live_block_bytes}, Count{s.ready_bytes});
  text.Add(",\n    \"retired_bytes\": %llu,\n    \"real_calls_avoided\": %llu",
           Count{s.retired_bytes}, Count{s.real_calls_avoided});
  text.Add(",\n    \"hit_rate\": %.6f\n  },\n  \"process\": {", hit_rate);
  const ProcessCounters& process = pool.statistics().process();
  const char* separator = "\n";
#define CMP_ADD(name, meaning)                                                 \
  text.Add("%s    \"" #name "\": %llu", separator, Count{process.name.Get()}); \
  separator = ",\n";
  CMP_PROCESS_COUNTERS(CMP_ADD)
#undef CMP_ADD
  text.Add("\n  }");
  AddJsonShake(text, g_shake_counts);
  AddJsonDevices(text, pool);
  text.Add(",\n  \"tiers\": [");
  separator = "\n";
  for (unsigned tier = 0; tier < pool.statistics().tier_count(); ++tier) {
    const TierTotals of_tier = pool.statistics().TotalsOfTier(tier);
    if (of_tier.requests() == 0 && of_tier.blocks_made == 0) continue;
    AddJsonTier(text, separator, pool.tiers().SizeOf(tier), of_tier);
    separator = ",\n";
  }
  text.Add("\n  ]\n}\n");
}

void AddUnreachedSummary(Text& text, const char* reason) {
  text.Add("cmp: %s (pid %d) used CUDA, but the pool served nothing: %s\n", ProgramName(),
           static_cast<int>(getpid()), reason);
}

void AddUnreachedJson(Text& text, const char* reason) {
  StatisticsRun run = {};
  DescribeRun(run);
  AddJsonHead(text, "pool", run);
  text.Add(",\n  \"reached\": false,\n  \"reason\": ");
  text.AddJsonString(reason);
  text.Add("\n}\n");
}

}  // namespace cmp
