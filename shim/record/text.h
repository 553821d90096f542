// Text of bounded length, built with printf and written at once.
#ifndef CMP_SHIM_RECORD_TEXT_H_
#define CMP_SHIM_RECORD_TEXT_H_

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
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

  // `value` as a JSON string, quoted; what is not UTF-8 in it becomes U+FFFD.
  void AddJsonString(const char* value) { AddJsonString(value, strlen(value)); }
  void AddJsonString(const char* value, size_t length) {
    Add("\"");
    for (size_t at = 0; at < length;) {
      const auto byte = static_cast<unsigned char>(value[at]);
      const size_t bytes = BytesOfCharacter(value + at, length - at);
      if (bytes == 0) {
        Add("\\ufffd");
      } else if (byte == '"' || byte == '\\') {
        Add("\\%c", byte);
      } else if (byte < 0x20) {
        Add("\\u%04x", byte);
      } else {
        Add("%.*s", static_cast<int>(bytes), value + at);
      }
      at += bytes == 0 ? 1 : bytes;
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
  // Of the first character in UTF-8 (RFC 3629); 0: it is none.
  static size_t BytesOfCharacter(const char* text, size_t length) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || bytes > length) return 0;
    for (size_t at = 1; at < bytes; ++at) {
      if (byte(at) >> 6 != 2) return 0;
    }
    const unsigned second = byte(1);
    const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    const bool no_character = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
    return overlong || no_character ? 0 : bytes;
  }

  static constexpr size_t kCapacity = 512 * kKiB;
  char* text_;
  size_t length_ = 0;
};

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_TEXT_H_
