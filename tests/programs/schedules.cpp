// Random schedules of CUDA calls whose results are known, checked as they go.
//
//   schedules --seed N --operations N --threads T --mode wait|auto|order|none [--contexts C]
//             [--captures] [--failures PERCENT] [--interleave] [--small]
//
// The mode says what the program takes for granted about cudaFree (schedules/ordering.h); with the
// real one every mode holds. One thread without failures prints a fingerprint of all results and
// contents, the same for every CMPSIM_SEED and with any pool. Exit code 1: something was wrong.
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "helper.h"
#include "schedules/actor.h"

namespace {

using schedules::Actor;
using schedules::Gives;
using schedules::Handover;
using schedules::Settings;

// The driver calls that a pool makes for itself.
constexpr const char* kPoolCalls[] = {
    "cuMemAlloc_v2",   "cuMemFree_v2",       "cuCtxRecordEvent",    "cuCtxWaitEvent",
    "cuEventQuery",    "cuEventSynchronize", "cuEventCreate",       "cuCtxGetId",
    "cuMemGetInfo_v2", "cuCtxSynchronize",   "cuStreamIsCapturing", "cuMemFreeAsync",
    "cuStreamCreate",  "cuStreamSynchronize"};

bool ParseMode(const char* text, Gives* gives) {
  const std::pair<const char*, Gives> modes[] = {{"wait", Gives::kHost},
                                                 {"auto", Gives::kVisible},
                                                 {"order", Gives::kOrder},
                                                 {"none", Gives::kNothing}};
  for (const auto& [name, value] : modes) {
    if (strcmp(text, name) == 0) {
      *gives = value;
      return true;
    }
  }
  return false;
}

bool Parse(int count, char** arguments, Settings* settings) {
  for (int i = 1; i < count; ++i) {
    const char* name = arguments[i];
    if (strcmp(name, "--captures") == 0) {
      settings->captures = true;
    } else if (strcmp(name, "--interleave") == 0) {
      settings->interleave = true;
    } else if (strcmp(name, "--small") == 0) {
      settings->large = false;
    } else if (i + 1 == count) {
      return false;
    } else {
      const char* value = arguments[++i];
      if (strcmp(name, "--seed") == 0) {
        settings->seed = strtoull(value, nullptr, 0);
      } else if (strcmp(name, "--operations") == 0) {
        settings->operations = strtoull(value, nullptr, 0);
      } else if (strcmp(name, "--threads") == 0) {
        settings->threads = atoi(value);
      } else if (strcmp(name, "--contexts") == 0) {
        settings->contexts = strtoull(value, nullptr, 0);
      } else if (strcmp(name, "--failures") == 0) {
        settings->failures = atof(value) / 100;
      } else if (strcmp(name, "--mode") != 0 || !ParseMode(value, &settings->free_gives)) {
        return false;
      }
    }
  }
  return settings->threads > 0 && settings->contexts > 0 &&
         settings->contexts <= schedules::kContexts;
}

void PlanFailures(const Settings& settings) {
  // Out of memory, unknown, invalid value; an error that ends a context is tested elsewhere.
  constexpr int kErrors[] = {2, 999, 1};
  program::Random random(settings.seed);
  for (const char* name : kPoolCalls) {
    const int error = kErrors[random.Below(std::size(kErrors))];
    if (!program::Random(random.Next()).Below(4)) continue;
    simFailRandomly(name, settings.failures, random.Next(), error);
  }
}

// A second thread that runs only at places of the first one's calls: right before and right after
// the driver does what a pool asked of it.
class Interloper {
 public:
  Interloper(const Settings& settings, Handover& handover)
      : random_(settings.seed + 77), main_(std::this_thread::get_id()) {
    helper_.Do([&] { actor_.emplace(settings, handover, 1); });
    helper_.Wait();
    SetCalled(&Interloper::Called);
  }

  void End() {
    SetCalled(nullptr);
    helper_.Wait();
    helper_.Do([&] { actor_->Finish(); });
    helper_.Wait();
  }
  uint64_t operations() const { return actor_->operations(); }
  uint64_t unexpected() const { return actor_->unexpected(); }

 private:
  static void Called(void* self) { static_cast<Interloper*>(self)->LetIn(); }

  void SetCalled(void (*called)(void*)) {
    for (const char* name : kPoolCalls) {
      simOnCall(name, SIM_BEFORE_CALL, called, called == nullptr ? nullptr : this);
      simOnCall(name, SIM_AFTER_CALL, called, called == nullptr ? nullptr : this);
    }
  }

  // It may need what this thread holds; then it goes on in parallel.
  void LetIn() {
    if (std::this_thread::get_id() != main_ || random_.Below(8) != 0 || helper_.IsBusy()) return;
    const uint64_t count = 1 + random_.Below(6);
    helper_.Do([this, count] {
      if (count % 2 == 0) actor_->FreeBusy();
      actor_->Run(count);
    });
  }

  program::Random random_;
  const std::thread::id main_;
  std::optional<Actor> actor_;
  program::Helper helper_;
};

}  // namespace

int main(int count, char** arguments) {
  Settings settings;
  if (!Parse(count, arguments, &settings)) return 2;
  if (settings.interleave) settings.threads = 2;
  setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  MUST(cudaFree(nullptr));

  Handover handover;
  uint64_t operations = 0;
  uint64_t unexpected = 0;
  uint64_t fingerprint = 0;
  std::mutex lock;
  const auto work = [&](int number) {
    Actor actor(settings, handover, number);
    actor.Run(settings.operations / static_cast<uint64_t>(settings.threads));
    actor.Finish();
    const std::lock_guard<std::mutex> guard(lock);
    operations += actor.operations();
    unexpected += actor.unexpected();
    fingerprint += actor.fingerprint();
  };
  const auto begin = std::chrono::steady_clock::now();
  if (settings.failures > 0) PlanFailures(settings);
  if (settings.interleave) {
    Interloper interloper(settings, handover);
    work(0);
    interloper.End();
    operations += interloper.operations();
    unexpected += interloper.unexpected();
  } else if (settings.threads == 1) {
    work(0);
  } else {
    std::vector<std::thread> threads;
    for (int i = 0; i < settings.threads; ++i) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  }
  simFailNever();
  for (auto& entry : handover.entries) {
    simNoteFree(entry.block->pointer);
    MUST(cudaFree(entry.block->pointer));
    if (entry.event != nullptr) MUST(cudaEventDestroy(entry.event));
  }
  MUST(cudaDeviceSynchronize());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  if (settings.predictable()) {
    printf("fingerprint %016llx, operations %llu\n", static_cast<unsigned long long>(fingerprint),
           static_cast<unsigned long long>(operations));
  }
  printf("wrong contents %llu, unexpected errors %llu\n",
         static_cast<unsigned long long>(schedules::g_wrong.load()),
         static_cast<unsigned long long>(unexpected));
  program::SayHazards();
  printf("# operations: %llu in %.2f s\n", static_cast<unsigned long long>(operations), seconds);
  for (const char* name : {"cuMemAlloc_v2", "cuMemFree_v2", "cuMemFreeAsync", "cuCtxRecordEvent",
                           "cuCtxWaitEvent", "cuStreamBeginCapture_v2",
                           "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuLaunchKernel"}) {
    printf("# %s: %llu\n", name, static_cast<unsigned long long>(simCallCount(name)));
  }
  const bool good =
      schedules::g_wrong == 0 && unexpected == 0 && simHazardCount() == 0 && simMisuseCount() == 0;
  return good ? 0 : 1;
}
