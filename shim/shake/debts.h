// A recording: what frees owed, and who came after them.
//
// A free that would owe order leaves a debt for what each stream has got since the free before, and
// the first later submission to another stream makes it an execution of two sites: that of the
// first submission, which holds back the others, and that of the last. What the host waited for is
// forgotten, so that only what could have gone wrong is a site. Under kind `host` the free itself
// is the execution, for work whose end the host could see.
//
// Not thread-safe.
#ifndef CMP_SHIM_SHAKE_DEBTS_H_
#define CMP_SHIM_SHAKE_DEBTS_H_

#include "shim/shake/shake.h"
#include "shim/shake/sites.h"
#include "shim/shake/streams.h"

namespace cmp {

class ShakeDebts {
 public:
  ShakeDebts(ShakeStreams& streams, ShakeSites& sites) : streams_(streams), sites_(sites) {}

  void Submit(const ShakenSubmission& submission, const ShakeCall& call, const ShakeStream& stream);
  void Free(const CallSite* where, uint32_t thread, size_t bytes);
  // Of the latest submission: what a wait that begins now waits for.
  uint64_t number() const { return number_; }
  void Waited(StreamName name, uint64_t begun);
  void StreamEnds(const ShakeStream& stream) { of_[streams_.IndexOf(stream)] = {}; }
  void ThreadEnds(uint32_t thread);

 private:
  struct Submitted {
    ShakeCall call;
    uint64_t number = 0;  // among all submissions; 0: none
  };
  // What a stream has got since the last free that owed, or the last wait of the host.
  struct Group {
    Submitted first;  // who holds this one back holds back all
    Submitted last;

    bool is_empty() const { return last.number == 0; }
    void Add(const Submitted& submitted) {
      if (is_empty()) first = submitted;
      last = submitted;
    }
    // All up to this number is done.
    void Done(uint64_t number) {
      if (last.number <= number) *this = {};
      if (first.number <= number) first = last;
    }
  };
  struct Debt {
    Group earlier;  // empty: none
    const CallSite* free_where = nullptr;
    uint32_t free_thread = 0;
    size_t free_bytes = 0;
  };
  struct OfStream {
    Group work;
    Group visible;  // of it, what the host could see the end of
    Debt debt;
  };

  // Executions of the sites of a group: each of its two once. `later`: nullptr, not known yet.
  void Execute(ShakeKind kind, const Debt& debt, const ShakeCall* later);

  ShakeStreams& streams_;
  ShakeSites& sites_;
  uint64_t number_ = 0;
  OfStream of_[ShakeStreams::kMost] = {};
  ShakeSite* freed_hosts_[8] = {};  // kind host: whose next call is not known yet
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_DEBTS_H_
