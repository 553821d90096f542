// What the fuzz targets share. A target is one function over some bytes:
//
//   extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
//
// It returns if all is as it should be, and else ends in Fail, a crash or a sanitizer's report.
// Whatever it keeps from one input to the next must not change what it does.
#ifndef CMP_TESTS_FUZZ_FUZZ_H_
#define CMP_TESTS_FUZZ_FUZZ_H_

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace cmp::fuzz {

// The target has found something.
[[noreturn, gnu::format(printf, 1, 2)]] inline void Fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("found: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  std::abort();
}

}  // namespace cmp::fuzz

// Fails, with what was expected and where, unless `condition` holds.
#define CMP_EXPECT(condition)                                                       \
  do {                                                                              \
    if (!(condition)) cmp::fuzz::Fail("%s:%d: %s", __FILE__, __LINE__, #condition); \
  } while (false)

#endif  // CMP_TESTS_FUZZ_FUZZ_H_
