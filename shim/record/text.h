// Text of bounded length, built with printf and written at once.
#ifndef CMP_SHIM_RECORD_TEXT_H_
#define CMP_SHIM_RECORD_TEXT_H_

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/memory.h"

namespace cmp {

class Text {
 public:
  Text() : text_(static_cast<char*>(MapPages(kCapacity))) {}

  __attribute__((format(printf, 2, 3))) void Add(const char* format, ...) {
    if (text_ == nullptr) return;
    va_list arguments;
    va_start(arguments, format);
    const int added = vsnprintf(text_ + length_, kCapacity - length_, format, arguments);
    va_end(arguments);
    if (added > 0) length_ += static_cast<size_t>(added);
    if (length_ > kCapacity - 1) length_ = kCapacity - 1;
  }

  // `value` as a JSON string, quoted.
  void AddJsonString(const char* value) {
    Add("\"");
    for (; *value != '\0'; ++value) {
      const auto byte = static_cast<unsigned char>(*value);
      if (byte == '"' || byte == '\\') {
        Add("\\%c", byte);
      } else if (byte < 0x20) {
        Add("\\u%04x", byte);
      } else {
        Add("%c", byte);
      }
    }
    Add("\"");
  }

  // False if not everything could be written.
  bool WriteTo(int file) const {
    for (size_t done = 0; done < length_;) {
      const ssize_t written = write(file, text_ + done, length_ - done);
      if (written <= 0) return false;
      done += static_cast<size_t>(written);
    }
    return text_ != nullptr;
  }

 private:
  static constexpr size_t kCapacity = 512 * kKiB;
  char* text_;
  size_t length_ = 0;
};

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_TEXT_H_
