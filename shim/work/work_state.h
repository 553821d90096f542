// What was submitted to one context, and what its later submissions owe: the order that a free
// promised. Plain values; ContextWork (context_work.h) has the lock.
//
//   since       the streams with work submitted since the newest fence for order. A free has a new
//               one recorded for them, unless there are none
//   unfinished  the streams with work submitted since all work was last known to be done: a wait of
//               the host for the only such stream is one for all. It holds what is in `since`. (A
//               stream whose submission first waits for a debt, on the device, is here beside the
//               streams of that debt: it is noted before the real call, while the device knows
//               nothing of the order yet.)
//   debt        the number of a free's fence, 0 for none. Until it is paid, a submission to another
//               stream than `debt_of` lets the device wait for that fence first; so does one that
//               may overtake earlier work of its own stream
//   debt_of     the streams that had work before that fence; none while there is no debt
//   unnoted     a fence for reuse covers what is in `since`, for which nobody owes order: the next
//               submission is to be noted, whatever its stream is. Only in one of several contexts,
//               where work of one that no fence covers delays the blocks of all others; where
//               somebody waits until nothing is unfinished; and for a free that owes no order
//
// A set of streams is none (-), one of them (s), or several, which may be any.
//
//   what happens                          since      unfinished  debt       debt_of      unnoted
//   ------------------------------------  ---------  ----------  ---------  -----------  -------
//   Begin: a context gets its pool        several    several     -          -            no
//   End: it ends                                                 -          -
//   Submitted: to s, owing nothing        + s        + s                                 no
//   FenceForOrderBegins: a free's,
//     while there is nothing in `since`              =
//     while there is                      -          =           the fence  + since
//   FenceForReuseBegins
//     in the only context                            =
//     in one of several, for idleness,
//     or for a free that owes no order               =                                   yes
//   FenceOwingNothingBegins               -          =
//   FenceFailed: that began last          several    several     as before  several (*)  no
//   Paid: this debt, unless it is another                        -          -
//   WaitBegins: the host's, for work                 =
//   AllFinished: as such a wait found     -          -           -          -
//   StreamEnds: s is several now, in each of since, unfinished, debt_of
//   AnyStreamEnds: what is not - is several now, in each of them
//
//   (blank)  as it was
//   + x      - becomes x, x stays, everything else becomes several
//   =        what `since` was, if the fence has passed that began last before this; else as it was
//   (*)      none, if there is no debt
//
// From this follows to which streams a submission changes nothing, and need not be noted. Those are
// quiet that are in `since`; but none is
//
//   - while unnoted
//   - while there is a debt, unless `since` and `debt_of` are the same one stream
//
// tests/shim/work/work_state_test.cpp holds the table against the code, row by row.
#ifndef CMP_SHIM_WORK_WORK_STATE_H_
#define CMP_SHIM_WORK_WORK_STATE_H_

#include <cstdint>
#include <initializer_list>

#include "shim/visible/streams.h"

namespace cmp {

struct WorkState {
  // Of work from before anybody looked, nothing is known.
  StreamName since = kSeveralStreams;
  StreamName unfinished = kSeveralStreams;
  uint64_t debt = 0;
  StreamName debt_of = kNoStream;
  bool unnoted = false;

  uint64_t begun = 0;          // the fence that began last
  uint64_t unpaid_before = 0;  // the debt when it began

  StreamName Quiet() const {
    const bool owed = debt != 0 && (debt_of != since || since == kSeveralStreams);
    return unnoted || owed ? kNoStream : since;
  }
  // Must a submission let the device wait first?
  bool Owes(StreamName stream, bool overtakes) const {
    return debt != 0 && (debt_of != stream || overtakes);
  }

  void Begin() { *this = {}; }
  void End() { PayAll(); }

  void Submitted(StreamName stream) {
    since = Join(since, stream);
    unfinished = Join(unfinished, stream);
    unnoted = false;
  }

  // A fence begins: its number, the newest that has begun by now (this one, or one beside it), and
  // the newest that is known to have passed.
  struct Beginning {
    uint64_t number;
    uint64_t begun;
    uint64_t passed;
  };
  void FenceForOrderBegins(const Beginning& fence) {
    FenceBegins(fence);
    if (since != kNoStream) {
      debt_of = debt == 0 ? since : Join(debt_of, since);
      debt = fence.number;
    }
    since = kNoStream;
  }
  void FenceForReuseBegins(const Beginning& fence, bool shows_later) {
    FenceBegins(fence);
    if (shows_later) unnoted = true;
  }
  void FenceOwingNothingBegins(const Beginning& fence) {
    FenceBegins(fence);
    since = kNoStream;
  }
  // What it was to cover is as if submitted again; of which streams is not known any more, as they
  // may have ended meanwhile.
  void FenceFailed() {
    debt = unpaid_before;
    debt_of = debt == 0 ? kNoStream : kSeveralStreams;
    Submitted(kSeveralStreams);
  }

  // False: it is another debt by now, or none.
  bool Paid(uint64_t number) {
    if (debt != number) return false;
    PayAll();
    return true;
  }

  void WaitBegins(uint64_t passed) { ForgetFinished(passed); }
  void AllFinished() {
    since = unfinished = kNoStream;
    PayAll();
  }

  void StreamEnds(StreamName stream) {
    for (StreamName* streams : {&since, &unfinished, &debt_of}) {
      if (*streams == stream) *streams = kSeveralStreams;
    }
  }
  void AnyStreamEnds() {
    for (StreamName* streams : {&since, &unfinished, &debt_of}) {
      if (*streams != kNoStream) *streams = kSeveralStreams;
    }
  }

 private:
  static StreamName Join(StreamName one, StreamName other) {
    if (one == kNoStream || one == other) return other;
    return other == kNoStream ? one : kSeveralStreams;
  }
  void ForgetFinished(uint64_t passed) {
    if (passed >= begun) unfinished = since;
  }
  void FenceBegins(const Beginning& fence) {
    ForgetFinished(fence.passed);
    begun = fence.begun;
    unpaid_before = debt;
  }
  void PayAll() {
    debt = 0;
    debt_of = kNoStream;
  }
};

}  // namespace cmp

#endif  // CMP_SHIM_WORK_WORK_STATE_H_
