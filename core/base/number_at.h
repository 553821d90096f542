// Decimal digits, without strto* and atoi: newer headers bind those to symbols that older C
// libraries lack, and then no program would start with the preload.
#ifndef CMP_CORE_BASE_NUMBER_AT_H_
#define CMP_CORE_BASE_NUMBER_AT_H_

#include <cstdint>

namespace cmp {

// The number that begins at `text`, behind spaces; 0 where none does. Wraps.
inline uint64_t NumberAt(const char* text) {
  while (*text == ' ') ++text;
  uint64_t number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    number = 10 * number + static_cast<uint64_t>(*text - '0');
  }
  return number;
}

}  // namespace cmp

#endif  // CMP_CORE_BASE_NUMBER_AT_H_
