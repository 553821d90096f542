// What the pool asks of the operating system, for one input after the other in one process: a clock
// that stands still but for sleeps, and memory that is given back at the end of an input, since a
// pool never gives its bookkeeping back.
//
// By the linker's --wrap (CMakeLists.txt); outside an input everything is the system's own.
#ifndef CMP_TESTS_FUZZ_SYSTEM_H_
#define CMP_TESTS_FUZZ_SYSTEM_H_

#include <cstdint>

namespace cmp::fuzz {

// While it lives, time is this one's, and pages that are mapped are. REQUIRES: one at a time, one
// thread; at its end nobody needs the pages any more
class System {
 public:
  System();
  ~System();
  System(const System&) = delete;
  System& operator=(const System&) = delete;

  static void Pass(uint64_t ns);
};

}  // namespace cmp::fuzz

#endif  // CMP_TESTS_FUZZ_SYSTEM_H_
