// What is measured with each allocator: each function takes what a row of compare_all.py asks for,
// and gives the row's figures.
//
//   pairs       a pair of an allocation and a free: bytes, threads
//   live        the same of a size drawn log-uniformly from 256 B to 1 MiB, beside `count` live
//               blocks of up to 4 KiB: count, threads
//   random      RMM's random_allocations, an allocation or free of it: count, most (bytes), new=1,
//               rounds (at least so many, the first half of them unmeasured)
//   loop        allocate, a kernel, free, an iteration; alone: without allocation and
//               free: streams, other=1 (freed on another stream, which waits for the kernel),
//               iterations, kernel_ns (20000; 0: one that does nothing)
//   hand-over   a block of 4 KiB that one thread allocates and another frees: pairs (of threads)
//   thread      a thread that lives for one pair of 4 KiB; alone: for none
//   first       each of `count` blocks of log-uniform sizes that the process has not had before;
//               worst: the worst
//   replay      an allocation or free of a trace, in the trace's order: trace (a file), calls
//   question    cudaPointerGetAttributes of a live block, cudaMemGetInfo, or the synchronisation of
//               an idle stream: of=attributes|memory|stream
//
// Each takes milliseconds, too: how long to measure, at least once. With busy=1 another thread
// keeps the device at work meanwhile. Figures are nanoseconds: medians within the process. Of
// pairs, live, hand-over and question there is the mean, too: what a thread waits for now and then
// is in it alone.
#ifndef CMP_TESTS_GPU_AGAINST_WORKLOADS_H_
#define CMP_TESTS_GPU_AGAINST_WORKLOADS_H_

#include <map>
#include <string>

#include "../../demo/kernels.h"
#include "allocator.h"

namespace cmp::against {

class Request {
 public:
  // Of "WORKLOAD name=value ...".
  explicit Request(const std::string& line);

  const std::string& workload() const { return workload_; }
  std::string text(const std::string& name) const;  // empty where it was not given
  size_t number(const std::string& name, size_t otherwise) const;
  double milliseconds() const { return static_cast<double>(number("milliseconds", 30)); }

 private:
  std::string workload_;
  std::map<std::string, std::string> values_;
};

struct Figures {
  double ns = 0;
  double mean_ns = 0;  // of this and those below: 0 where there is no such figure
  double alone_ns = 0;
  double worst_ns = 0;
};

// Ends the program where something fails.
Figures Run(Allocator& allocator, const demo::Kernels& kernels, const Request& request);

}  // namespace cmp::against

#endif  // CMP_TESTS_GPU_AGAINST_WORKLOADS_H_
