// The library's own pool: what CudaMemoryPool stands on where no preloaded shim is there.
#include <stdlib.h>
#include <unistd.h>

#include "core/context_wait.h"
#include "core/face_over.h"
#include "core/warnings.h"

namespace cmp {

namespace {

struct Library {
  static constexpr bool kSeesContextsEnd = false;

  static Pool* Started() {
    static constexpr PoolStart kStart = {&ReadLibraryOptions, &MapStatistics, nullptr};
    return StartPool(kStart);
  }

  // Captures are not seen without the shim.
  static bool Capturing() { return false; }

  // Waits for the context, as cudaFree does.
  static bool SettleFree(Pool& pool, const Driver& driver, Block* block) {
    ContextPool& context = *block->owner();
    if (!context.open() || g_exiting.load(std::memory_order_acquire)) return false;
    ThreadCache* cache = pool.CacheFor(context);
    if (cache == nullptr) return false;
    ContextWait wait(driver, *cache);
    const uint64_t begin = NowNs();
    int status = wait.Record();
    if (status == kSuccess) status = wait.Wait();
    pool.statistics().CountWait(begin);
    if (IsBrokenContextStatus(status)) pool.CloseContext(context);
    return status == kSuccess;
  }

 private:
  static Options ReadLibraryOptions() {
    WarnOfMisspelledOptions(environ, &PrintWarning);
    Options options = ReadOptions(
        [](const char* name) -> const char* { return secure_getenv(name); }, &PrintWarning);
    options.mode = Mode::kPool;  // CMP_MODE is the shim's: who links the pool wants it
    return options;
  }
  static void* MapStatistics(const Options&, size_t bytes) { return MapPages(bytes); }
};

}  // namespace

const PoolFace* LibraryPoolFace() { return FaceOver<Library>::Face(); }

}  // namespace cmp
