// One thread of a schedule: random operations, decided by its seed, and what they must result in.
//
// Conflicting work is submitted only where it is known to run in program order: by streams, events,
// synchronisation, and by what the mode says that a free gives. Where it is not, the actor first
// establishes an order, by a free above all. So the contents are the same whenever the device does
// the work, and whoever frees memory without giving the order is found out.
#ifndef CMP_TESTS_PROGRAMS_SCHEDULES_ACTOR_H_
#define CMP_TESTS_PROGRAMS_SCHEDULES_ACTOR_H_

#include <deque>
#include <memory>
#include <mutex>

#include "contents.h"

namespace schedules {

struct Settings {
  uint64_t seed = 1;
  uint64_t operations = 10000;
  int threads = 1;
  size_t contexts = 1;
  Gives free_gives = Gives::kHost;
  bool captures = false;
  double failures = 0;  // probability
  bool interleave = false;
  bool large = true;  // blocks of megabytes, too

  // Are the results of all calls decided by the seed alone?
  bool predictable() const { return threads == 1 && failures == 0; }
};

// Blocks on their way to another thread.
struct Handover {
  struct Entry {
    std::unique_ptr<Block> block;
    cudaEvent_t event = nullptr;  // behind the block's work; null: that is known to be done or to
                                  // run before whatever is submitted now
  };
  std::mutex lock;
  std::deque<Entry> entries;
};

class Actor {
 public:
  Actor(const Settings& settings, Handover& handover, int number);
  ~Actor();
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;

  // Up to `count` operations, on the calling thread, always the same one.
  void Run(uint64_t count);
  // Frees a block that long work has just been launched on, and asks for one of its size.
  bool FreeBusy();
  // Checks all contents and gives everything back.
  void Finish();

  uint64_t operations() const { return operations_; }
  uint64_t unexpected() const { return unexpected_; }  // errors of calls that must not fail
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  struct StreamOf {
    cudaStream_t handle = nullptr;
    uint32_t place = 0;
    Kind kind = Kind::kNonBlocking;
    bool own = true;  // neither the legacy nor the per-thread stream
    bool capturing = false;
  };
  struct EventOf {
    cudaEvent_t handle = nullptr;
    size_t context = 0;
    bool timed = false;
    bool recorded = false;
    Submission point;  // the record
    Clock clock;       // up to it
  };
  struct ContextOf {
    CUcontext handle = nullptr;
    std::vector<StreamOf> streams;
  };
  struct Graph {
    cudaGraphExec_t executable = nullptr;
    size_t context = 0;
    std::vector<Step> steps;
    std::vector<std::unique_ptr<Kernel>> kernels;
  };
  struct Branch {
    StreamOf* stream = nullptr;
    std::vector<Block*> used;  // since the fork
  };

  bool Operation();

  // Calls: their results.
  bool Ok(int status, const char* what);
  bool Chance(uint64_t one_in) { return random_.Below(one_in) == 0; }

  // Memory (actor.cpp)
  size_t RandomSize();
  bool Allocate(size_t bytes);
  bool MayFree(const Block& block) const;
  bool CheckAndFree(size_t index);
  bool Free(size_t index);  // REQUIRES: MayFree
  bool FreeAny(size_t context);
  Block* RandomBlock(bool known, bool page_locked, bool any_context = false);
  void PickBlocks(Step* step, bool page_locked);
  bool Check(Block& block);
  bool HostAccess();
  bool GiveAway();
  bool TakeOver();

  // Work (actor_work.cpp)
  StreamOf& RandomStream();
  StreamOf* StreamAt(uint32_t place);
  bool MakeOrdered(uint32_t place, const Block& block, bool write);
  bool MakeOrdered(uint32_t place, const Step& step);
  bool MakeOrderedForHost(const Block& block, bool write);
  int Submit(const Step& step, cudaStream_t stream, std::unique_ptr<Kernel>* kept);
  bool Do(const Step& step, StreamOf& stream);
  bool Launch(StreamOf& stream);
  bool HostFunction();
  bool AsyncCopyOrSet();
  bool VisibleCopyOrSet();
  bool SyncCopyOrSet();
  bool Record(EventOf* event, const StreamOf& stream);
  bool RecordEvent();
  bool WaitEvent();
  bool Synchronize();
  bool SynchronizeContext();
  void SynchronizeContextOf(uint32_t place);
  bool Ask();
  bool IsLate(int status) const;  // an answer after which nothing can be said
  bool AskStream(const StreamOf& stream);
  bool AskEvent(const EventOf& event);
  bool AskElapsedTime(const EventOf& begin, const EventOf& end);
  bool CreateOrDestroyStream();
  bool DestroyStream(size_t index);

  // Contexts (actor_contexts.cpp)
  void MakeContext();
  void Enter(size_t context);
  bool SwitchContext();
  bool DestroyContext(size_t context);
  void SettleEverything();

  // Captures (actor_captures.cpp)
  bool Capture();
  bool CaptureStep(Graph* graph, std::vector<Branch>* branches);
  bool CaptureFork(Graph* graph, std::vector<Branch>* branches);
  bool CaptureOtherCalls(cudaStreamCaptureMode mode);
  void DropGraph(size_t index);
  bool LaunchGraph();

  const Settings& settings_;
  Handover& handover_;
  const int number_;
  program::Random random_;
  Ordering ordering_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<std::unique_ptr<Block>> page_locked_;
  char* page_locked_memory_ = nullptr;
  std::vector<char> registered_memory_;
  std::vector<EventOf> events_;
  std::vector<ContextOf> contexts_;
  size_t current_ = 0;
  std::vector<Graph> graphs_;
  std::vector<std::unique_ptr<Kernel>> old_kernels_;  // of graphs that may still run
  uint64_t pace_ns_ = 10000;     // how long most kernels take; changes now and then
  bool errors_allowed_ = false;  // a capture of this thread is under way
  uint64_t operations_ = 0;
  uint64_t unexpected_ = 0;
  uint64_t fingerprint_ = 0;
};

}  // namespace schedules

#endif  // CMP_TESTS_PROGRAMS_SCHEDULES_ACTOR_H_
