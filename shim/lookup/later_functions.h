// Functions of the driver that a program looked up and that are of a later CUDA than any that this
// version knows, by names of which nobody has said what they do. They are left real: work that they
// submit is not seen. So the statistics name them.
#ifndef CMP_SHIM_LOOKUP_LATER_FUNCTIONS_H_
#define CMP_SHIM_LOOKUP_LATER_FUNCTIONS_H_

namespace cmp {

// Thread-safe. Of many the first are kept, of long names the beginning.
void NoteLaterFunction(const char* name);

// The one of that number, from 0 on; nullptr: there are no more.
const char* LaterFunction(int number);

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_LATER_FUNCTIONS_H_
