// Lookups by dlsym: the real ones, and our own dlsym (dlsym.cpp, dlsym_tail.S), which answers with
// ours where the driver's function is one that we serve.
#ifndef CMP_SHIM_LOOKUP_DLSYM_H_
#define CMP_SHIM_LOOKUP_DLSYM_H_

namespace cmp {

using DlsymFunction = void* (*)(void* handle, const char* name);

// The one that comes after ours in the search order: another preload's, or the C library's. What we
// do not answer is passed on to it.
DlsymFunction NextDlsym();

// What a program finds for the name by the search order. (RTLD_DEFAULT, asked from here, would
// begin with ourselves.)
void* FirstInOrder(const char* name);

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_DLSYM_H_
