// A test's body in a process of its own, where nothing has used the pool yet.
#ifndef CMP_TESTS_CORE_FRESH_PROCESS_H_
#define CMP_TESTS_CORE_FRESH_PROCESS_H_

#include <cuda.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

namespace cmp::test {

inline CUdeviceptr AddressOf(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

// `said`: what it says on stderr, a regular expression.
inline void ExpectInFreshProcess(const std::function<bool()>& body, const char* said = "") {
  EXPECT_EXIT(_exit(body() ? 0 : 1), testing::ExitedWithCode(0), said);
}

}  // namespace cmp::test

#endif  // CMP_TESTS_CORE_FRESH_PROCESS_H_
