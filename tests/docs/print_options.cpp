// Prints the option table as scripts/docs/options.md must have it.
#include <cstdio>

#include "core/base/options.h"

int main() {
  std::puts("| option | default | values | |");
  std::puts("|---|---|---|---|");
  cmp::PrintOptionTable([](const char* row) { std::puts(row); });
  return 0;
}
