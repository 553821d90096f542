// A submission on its way: what is owed is paid before its real call, and it is noted around it
// (context_work.h says why twice).
//
// In an entry point, the usual one reads the owner of all work and whether the stream is quiet, and
// once more after the call. Everything else is here.
#ifndef CMP_SHIM_WORK_SUBMISSION_H_
#define CMP_SHIM_WORK_SUBMISSION_H_

#include "core/contexts/device_links.h"
#include "shim/visible/visible_work.h"
#include "shim/work/work_of_stream.h"

namespace cmp {

// The same as FindOwner, for who is about to submit: pays first what the thread owes elsewhere.
WorkOwner FindOwnerToSubmit(StreamName stream);
// `of_all`: what was found in g_owner_of_all.
inline WorkOwner OwnerToSubmit(WorkOwner of_all, StreamName stream) {
  return of_all.IsOneOfSeveral() ? FindOwnerToSubmit(stream) : of_all;
}

// The look after the real call, with what was found before it. Another context may have got a pool
// meanwhile.
inline bool IsToBeNoted(WorkOwner of_all, WorkOwner owner, StreamName stream) {
  if (g_owner_of_all.load(std::memory_order_acquire) != of_all) [[unlikely]]
    return true;
  return !owner.IsQuiet(stream);
}
void NoteSubmitted(WorkOwner of_all, WorkOwner owner, StreamName stream,
                   Visible visible = Visible::kNothing);

class [[nodiscard]] Submission {
 public:
  explicit Submission(StreamName stream, bool overtakes = false,
                      Visible visible = Visible::kNothing)
      : of_all_(g_owner_of_all.load(std::memory_order_acquire)),
        owner_(OwnerToSubmit(of_all_, stream)),
        stream_(stream),
        visible_(visible) {
    if (!owner_.IsQuiet(stream) || overtakes || visible != Visible::kNothing) [[unlikely]]
      owner_.Enter(stream, overtakes, visible);
  }
  ~Submission() {
    if (visible_ != Visible::kNothing || IsToBeNoted(of_all_, owner_, stream_)) [[unlikely]]
      NoteSubmitted(of_all_, owner_, stream_, visible_);
  }
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

 private:
  WorkOwner of_all_;
  WorkOwner owner_;
  StreamName stream_;
  Visible visible_;
};

// Notes a submission to a context's stream that may run in others: in those of `devices`, but for
// its own.
void NoteElsewhere(StreamName stream, Visible visible, Devices devices);

// The same beside a Submission for one that may run in other contexts than its stream's: those of
// the devices that devices() says, which is asked only where there are several contexts.
class [[nodiscard]] SubmissionElsewhere {
 public:
  template <typename DevicesOf>
  SubmissionElsewhere(StreamName stream, Visible visible, DevicesOf devices)
      : devices_(g_owner_of_all.load(std::memory_order_acquire).IsOneOfSeveral() ? devices() : 0),
        stream_(stream),
        visible_(visible) {
    if (devices_ != 0) NoteElsewhere(stream_, visible_, devices_);
  }
  ~SubmissionElsewhere() {
    if (devices_ != 0) NoteElsewhere(stream_, visible_, devices_);
  }
  SubmissionElsewhere(const SubmissionElsewhere&) = delete;
  SubmissionElsewhere& operator=(const SubmissionElsewhere&) = delete;

 private:
  Devices devices_;
  StreamName stream_;
  Visible visible_;
};

}  // namespace cmp

#endif  // CMP_SHIM_WORK_SUBMISSION_H_
