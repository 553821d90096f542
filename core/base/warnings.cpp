#include "core/base/warnings.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/lock.h"

namespace cmp {

void PrintWarning(const char* line) {
  char text[512];
  snprintf(text, sizeof(text) - 1, "cmp: %s", line);
  MakeOneLine(text);
  const size_t length = strlen(text);
  text[length] = '\n';
  const Uncancelled uncancelled;  // whatever the caller holds
  // A line that cannot be written is lost; there is nowhere else to say so.
  if (write(STDERR_FILENO, text, length + 1) < 0) return;
}

void MakeOneLine(char* text) {
  for (; *text != '\0'; ++text) {
    const auto byte = static_cast<unsigned char>(*text);
    if (byte < ' ' || byte == 0x7f) *text = '?';
  }
}

}  // namespace cmp
