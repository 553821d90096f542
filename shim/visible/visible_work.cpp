#include "shim/visible/visible_work.h"

#include <algorithm>

namespace cmp {

VisibleWork::Stream* VisibleWork::Find(StreamName name) {
  Stream* end = streams_ + count_;
  Stream* found = std::find_if(streams_, end, [&](const Stream& s) { return s.name == name; });
  return found == end ? nullptr : found;
}

void VisibleWork::Add(StreamName stream, Visible what, bool after_legacy) {
  ++last_;
  Stream* place = Find(stream);
  if (place == nullptr && count_ + 1 >= kMost) {  // the last place is for all others
    stream = kSeveralStreams;
    place = Find(stream);
  }
  const uint64_t before = place == nullptr ? 0 : Newest(*place);
  if (place == nullptr) place = &streams_[count_++];
  *place = {stream, last_, 0, before, what, after_legacy && stream != kSeveralStreams};
}

bool VisibleWork::IsAfterLegacy(StreamName stream) const {
  for (size_t i = 0; i < count_; ++i) {
    if (streams_[i].name == stream) return streams_[i].after_legacy;
  }
  return false;
}

void VisibleWork::FenceBegins(uint64_t number) {
  begun_ = number;
  for (size_t i = 0; i < count_; ++i) {
    if (streams_[i].fence == 0) streams_[i].fence = number;
  }
}

void VisibleWork::FenceFailed() {
  for (size_t i = 0; i < count_; ++i) {
    if (streams_[i].fence == begun_) streams_[i].fence = 0;
  }
}

void VisibleWork::Finished(StreamName stream, uint64_t last) {
  for (size_t i = count_; i-- > 0;) {
    const Stream& candidate = streams_[i];
    const bool covered = stream == kSeveralStreams || stream == candidate.name ||
                         (stream == kLegacyStream && candidate.after_legacy);
    if (covered && candidate.submission <= last) Remove(i);
  }
}

void VisibleWork::StreamEnds(StreamName stream) {
  for (size_t i = count_; i-- > 0;) {
    const Stream ended = streams_[i];
    if (ended.name == kSeveralStreams || (stream != kSeveralStreams && ended.name != stream)) {
      continue;
    }
    Remove(i);
    Stream* others = Find(kSeveralStreams);
    if (others == nullptr) {
      streams_[count_++] = ended;
      streams_[count_ - 1].name = kSeveralStreams;
      streams_[count_ - 1].after_legacy = false;
      continue;
    }
    // Of two, the later submission, and the fence that covers both.
    const bool later = ended.submission > others->submission;
    others->submission = std::max(others->submission, ended.submission);
    others->before = std::max(Newest(ended), Newest(*others));
    others->fence =
        ended.fence == 0 || others->fence == 0 ? 0 : std::max(ended.fence, others->fence);
    if (later) others->what = ended.what;
  }
}

VisibleWork::Pending VisibleWork::Until(uint64_t passed) {
  Pending pending;
  for (size_t i = count_; i-- > 0;) {
    const Stream& stream = streams_[i];
    if (stream.fence != 0 && stream.fence <= passed) {
      Remove(i);
    } else if (const uint64_t fence = Newest(stream); fence > std::max(passed, pending.fence)) {
      pending = {fence, stream.what};
    }
  }
  return pending;
}

}  // namespace cmp
