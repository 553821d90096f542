// Threads that write down, while the process runs, what its memory has: of statistics and traces.
#ifndef CMP_SHIM_RECORD_WRITER_H_
#define CMP_SHIM_RECORD_WRITER_H_

namespace cmp {

struct Writer {
  const char* name;  // of the thread
  // Writes what has changed, if anything has, and says so. False: there is no more to write.
  bool (*write)(bool* is_changed);
};

// Starts a thread that calls writer.write, first after a millisecond, then ten times a second,
// until that returns false or the program is over. `writer` must outlive the process. False: no
// thread can be made, or none would know when to end. Thread-safe.
bool StartWriter(const Writer& writer);

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_WRITER_H_
