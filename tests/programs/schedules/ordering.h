// Which submissions are known to run before which, from what the program did: vector clocks.
//
// Every stream that ever was has a place in a clock (until Forget); a submission is a stream's
// place and a number. A clock says of every stream up to which number its work is known to be done
// before whatever the clock belongs to: the host's next step, a stream's next work.
//
// What a free gives is the question under test, so it is a parameter; everything else here is what
// CUDA promises whether or not there is a pool.
#ifndef CMP_TESTS_PROGRAMS_SCHEDULES_ORDERING_H_
#define CMP_TESTS_PROGRAMS_SCHEDULES_ORDERING_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace schedules {

constexpr size_t kStreams = 64;
constexpr size_t kContexts = 4;

struct Submission {
  uint32_t stream = 0;
  uint32_t number = 0;  // 0: none
};

class Clock {
 public:
  bool Covers(Submission submission) const {
    return submission.number <= numbers_[submission.stream];
  }
  void Join(const Clock& other) {
    for (size_t i = 0; i < kStreams; ++i) numbers_[i] = std::max(numbers_[i], other.numbers_[i]);
  }
  void Set(Submission submission) { numbers_[submission.stream] = submission.number; }
  uint32_t NumberOf(uint32_t stream) const { return numbers_[stream]; }

 private:
  std::array<uint32_t, kStreams> numbers_{};
};

enum class Kind { kLegacy, kBlocking, kNonBlocking };

// What a free promises for all earlier work of the block's context.
enum class Gives {
  kHost,     // it is done when the free returns
  kVisible,  // it looks so: work that the host can see the end of is done when the free returns,
             // questions are answered as if all were, and later work runs after all of it
  kOrder,    // it is done before work that is submitted to the context after the free
  kNothing,  // no more than that the block is not reused too early
};

class Ordering {
 public:
  explicit Ordering(Gives free_gives) : free_gives_(free_gives) {}

  bool Full() const { return count_ == kStreams && FindFree() == kStreams; }
  // REQUIRES: !Full()
  uint32_t AddStream(size_t context, Kind kind) {
    const size_t place = FindFree();
    if (place == count_) ++count_;
    streams_[place] = {context, kind, true, false, {}, {}};
    return static_cast<uint32_t>(place);
  }
  // Its pending work stays pending.
  void DestroyStream(uint32_t stream) { streams_[stream].destroyed = true; }

  // What comes before the next submission to the stream.
  Clock Before(uint32_t stream) const {
    const Stream& own = streams_[stream];
    Clock clock = own.clock;
    clock.Join(host_);
    clock.Join(floors_[own.context]);
    if (own.kind == Kind::kNonBlocking) return clock;
    const Kind other = own.kind == Kind::kLegacy ? Kind::kBlocking : Kind::kLegacy;
    for (size_t i = 0; i < count_; ++i) {
      const Stream& candidate = streams_[i];
      if (candidate.used && candidate.context == own.context && candidate.kind == other) {
        clock.Join(candidate.clock);
      }
    }
    return clock;
  }
  // A submission that comes after `before`, which is Before(stream) or more. `visible`: the host
  // can see when it is done.
  Submission Submit(uint32_t stream, const Clock& before, bool visible = false) {
    const Submission submission{stream, before.NumberOf(stream) + 1};
    streams_[stream].clock = before;
    streams_[stream].clock.Set(submission);
    if (visible) streams_[stream].visible = streams_[stream].clock;
    return submission;
  }

  const Clock& host() const { return host_; }
  const Clock& floor(size_t context) const { return floors_[context]; }
  size_t ContextOf(uint32_t stream) const { return streams_[stream].context; }
  bool IsDestroyed(uint32_t stream) const { return streams_[stream].destroyed; }

  void HostWaitsFor(const Clock& clock) { host_.Join(clock); }
  // The legacy stream has passed when every blocking stream has.
  void HostWaitsForStream(uint32_t stream) {
    host_.Join(streams_[stream].clock);
    if (streams_[stream].kind != Kind::kLegacy) return;
    ForEachOf(streams_[stream].context, [&](const Stream& other) {
      if (other.kind == Kind::kBlocking) host_.Join(other.clock);
    });
  }
  void HostWaitsForContext(size_t context) {
    ForEachOf(context, [&](const Stream& stream) { host_.Join(stream.clock); });
  }
  // A block of the context was freed.
  void Free(size_t context) {
    if (free_gives_ == Gives::kNothing) return;
    if (free_gives_ == Gives::kHost) return HostWaitsForContext(context);
    ForEachOf(context, [&](const Stream& stream) {
      floors_[context].Join(stream.clock);
      if (free_gives_ != Gives::kVisible) return;
      answers_[context].Join(stream.clock);
      host_.Join(stream.visible);
    });
  }
  bool FreeOrders() const { return free_gives_ != Gives::kNothing; }
  bool FreeShowsHost() const {
    return free_gives_ == Gives::kHost || free_gives_ == Gives::kVisible;
  }

  // Must a question about it be answered by "done"?
  bool IsAnsweredDone(Submission submission) const {
    return host_.Covers(submission) ||
           answers_[streams_[submission.stream].context].Covers(submission);
  }
  // The legacy stream is done when every blocking stream is.
  bool IsAnsweredDone(uint32_t stream) const {
    const Stream& own = streams_[stream];
    for (uint32_t i = 0; i < count_; ++i) {
      const Stream& other = streams_[i];
      const bool counts =
          i == stream || (own.kind == Kind::kLegacy && other.used && other.context == own.context &&
                          other.kind == Kind::kBlocking);
      if (counts && !IsAnsweredDone(Submission{i, other.clock.NumberOf(i)})) return false;
    }
    return true;
  }

  // All work of all contexts is done: every number begins again, destroyed streams leave their
  // places. Whoever keeps submissions or clocks forgets them as well.
  void Forget() {
    for (size_t i = 0; i < count_; ++i) {
      streams_[i].clock = Clock{};
      streams_[i].visible = Clock{};
      if (streams_[i].destroyed) streams_[i] = Stream{};
    }
    host_ = Clock{};
    floors_ = {};
    answers_ = {};
  }

 private:
  struct Stream {
    size_t context = 0;
    Kind kind = Kind::kNonBlocking;
    bool used = false;
    bool destroyed = false;
    Clock clock;    // up to its last submission, which included
    Clock visible;  // likewise, up to the last one that the host can see the end of
  };

  size_t FindFree() const {
    for (size_t i = 0; i < count_; ++i) {
      if (!streams_[i].used) return i;
    }
    return count_;
  }
  template <typename Function>
  void ForEachOf(size_t context, Function function) const {
    for (size_t i = 0; i < count_; ++i) {
      if (streams_[i].used && streams_[i].context == context) function(streams_[i]);
    }
  }

  const Gives free_gives_;
  std::array<Stream, kStreams> streams_{};
  size_t count_ = 0;
  Clock host_;
  std::array<Clock, kContexts> floors_{};
  std::array<Clock, kContexts> answers_{};
};

}  // namespace schedules

#endif  // CMP_TESTS_PROGRAMS_SCHEDULES_ORDERING_H_
