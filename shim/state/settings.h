// The settings that this process gets, and the shim's version.
#ifndef CMP_SHIM_STATE_SETTINGS_H_
#define CMP_SHIM_STATE_SETTINGS_H_

#include "core/base/options.h"

namespace cmp {

// The settings of this process, with a line on stderr for each that is wrong. A program that is not
// to be served gets Mode::kOff.
Options ReadShimOptions();

// CMP_PROGRAMS leaves this program out. Set when the settings are read.
inline constinit bool g_left_out = false;

// As cmp_preload_version() gives it.
inline const char* Version() { return CMP_VERSION; }

}  // namespace cmp

#endif  // CMP_SHIM_STATE_SETTINGS_H_
