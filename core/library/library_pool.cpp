// The library's own pool: what CudaMemoryPool stands on where no preloaded shim is there.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/warnings.h"
#include "core/library/face_over.h"

namespace cmp {

namespace {

struct Library {
  static constexpr bool kSeesContextsEnd = false;

  static Pool* Started() {
    static constexpr PoolStart kStart = {&ReadLibraryOptions, nullptr, nullptr, nullptr,
                                         &kBlindHost};
    return StartPool(kStart);
  }

  // Captures are not seen without the shim.
  static bool Capturing() { return false; }

  // Submissions are not seen either: every free is followed by a fence, and by what the mode owes.
  // What the host could notice is not known: `auto` waits.
  static Settlement SettleFree(Pool& pool, const Driver& driver, Block* block, Wait wait) {
    ContextPool& context = *block->owner();
    Readiness& readiness = pool.readiness();
    if (!context.open() || g_exiting.load(std::memory_order_acquire)) return kRealFree;
    const bool fences = Readiness::HasContextEvents(driver);
    if (pool.options().free_sync == FreeSync::kNone && fences) {
      return Settlement::Pooled(readiness.StampNow(context));
    }
    if ((wait == Wait::kNever || pool.options().free_sync == FreeSync::kOrder) && fences) {
      const Fences::Recorded fence = readiness.Record(context, FencePurpose::kOrder);
      if (fence.status == kSuccess &&
          (wait == Wait::kNever ||
           context.fences().OrderAfter(driver, context.handle(), fence.number).status ==
               kSuccess)) {
        return Settlement::Pooled(readiness.StampFor(context, fence.number));
      }
    }
    const uint64_t begin = NowNs();
    const int status = readiness.Finish(context);
    pool.statistics().CountWait(begin);
    if (status != kSuccess) return kRealFree;
    return Settlement::Waited(readiness.StampOfOthers(context));
  }

  static Allocation Alloc(Pool& pool, const Driver& driver, ContextPool* context, bool real,
                          size_t bytes, const DeviceApi& api) {
    return AllocFilled(pool, driver, context, real, bytes, api);
  }

  static int FreeTaken(Pool& pool, const Driver& driver, Block* block, BlockState taken, Wait wait,
                       const DeviceApi& api) {
    const bool live = taken == BlockState::kLive;
    const Settlement settled = live ? SettleFree(pool, driver, block, wait) : kRealFree;
    if (!settled.pooled()) return pool.FreeRealUnlessRefused(block, api);
    pool.Retire(block, settled.stamp, api);
    return kSuccess;
  }

 private:
  // What was asked for and is not here must not pass for done.
  static void TellOfTheShimsAlone(const Options& options) {
    const struct {
      const char* name;
      bool is_set;
    } settings[] = {
        {"CMP_MODE", options.mode != Mode::kPool}, {"CMP_PROGRAMS", options.programs != nullptr},
        {"CMP_STATS", options.stats != nullptr},   {"CMP_TRACE", options.trace != nullptr},
        {"CMP_SHAKE", options.shake != kShakeOff}, {"CMP_VERBOSE", options.verbose}};
    for (const auto& [name, is_set] : settings) {
      if (!is_set) continue;
      char line[80];
      snprintf(line, sizeof(line), "%s does nothing without the preload", name);
      PrintWarning(line);
    }
  }
  static Options ReadLibraryOptions() {
    WarnOfMisspelledOptions(environ, &PrintWarning);
    Options options = ReadOptions(
        [](const char* name) -> const char* { return secure_getenv(name); }, &PrintWarning);
    TellOfTheShimsAlone(options);
    g_device_links.Link(kAnyDevice);  // peer access is not seen without the shim
    options.mode = Mode::kPool;       // CMP_MODE is the shim's: who links the pool wants it
    options.trace = nullptr;          // so is this
    return options;
  }
};

}  // namespace

const PoolFace* LibraryPoolFace() { return FaceOver<Library>::Face(); }

}  // namespace cmp
