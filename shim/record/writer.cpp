#include "shim/record/writer.h"

#include <algorithm>

#include "core/base/lock.h"
#include "core/base/own_thread.h"

namespace cmp {

namespace {

// Between two writes: at first little, so that a process which is soon over leaves something, too.
constexpr long kFirstPauseNs = 1'000'000;
constexpr long kLongestPauseNs = 100'000'000;

void* KeepWriting(void* of) {
  const Writer& writer = *static_cast<const Writer*>(of);
  BeginOwnThread(writer.name);
  bool is_changed = true;
  bool over = false;
  for (long pause = kFirstPauseNs; is_changed || (TellWhetherMainThreadIsOver(&over) && !over);) {
    SleepNs(pause);
    pause = std::min(2 * pause, kLongestPauseNs);
    if (!writer.write(&is_changed)) break;
  }
  return nullptr;
}

}  // namespace

bool StartWriter(const Writer& writer) {
  bool over = false;  // a thread that could not tell would keep the process for ever
  return TellWhetherMainThreadIsOver(&over) &&
         StartOwnThread(&KeepWriting, const_cast<Writer*>(&writer));
}

}  // namespace cmp
