// Driver entry points for stream memory operations: write a value, wait for a value.
//
// Both are work of their own on the stream. A wait is done as soon as the value is right, whoever
// wrote it: another item, or the program in page-locked memory.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

struct Operation {
  CUstreamBatchMemOpType type = CU_STREAM_MEM_OP_BARRIER;
  CUdeviceptr address = 0;
  uint64_t value = 0;
  unsigned flags = 0;
};

bool IsWait(const Operation& operation) {
  return operation.type == CU_STREAM_MEM_OP_WAIT_VALUE_32 ||
         operation.type == CU_STREAM_MEM_OP_WAIT_VALUE_64;
}

size_t BytesOf(const Operation& operation) {
  return operation.type == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
                 operation.type == CU_STREAM_MEM_OP_WRITE_VALUE_64
             ? 8
             : 4;
}

// Device and page-locked memory; managed memory may not be used here.
bool IsWhereItMayBe(Simulation& sim, const Operation& operation) {
  if (operation.type == CU_STREAM_MEM_OP_BARRIER) return true;
  const Allocation* allocation = sim.allocations.Find(operation.address);
  return allocation != nullptr && allocation->kind != MemoryKind::kManaged &&
         operation.address + BytesOf(operation) <= allocation->range().end();
}

CUresult Check(const Operation& operation) {
  if (operation.type == CU_STREAM_MEM_OP_BARRIER) return CUDA_SUCCESS;
  if (operation.type == CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES) return CUDA_ERROR_NOT_SUPPORTED;
  const bool flushes = IsWait(operation) && (operation.flags & CU_STREAM_WAIT_VALUE_FLUSH) != 0;
  if (flushes) return CUDA_ERROR_NOT_SUPPORTED;  // as the device's attribute says
  constexpr unsigned kLastCondition = CU_STREAM_WAIT_VALUE_NOR;
  constexpr unsigned kLastWriteFlag = CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER;
  if (operation.flags > (IsWait(operation) ? kLastCondition : kLastWriteFlag)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return operation.address % BytesOf(operation) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

template <typename Word>
bool Holds(Word now, Word wanted, unsigned condition) {
  using Signed = std::make_signed_t<Word>;
  switch (condition) {
    case CU_STREAM_WAIT_VALUE_EQ:
      return now == wanted;
    case CU_STREAM_WAIT_VALUE_AND:
      return (now & wanted) != 0;
    case CU_STREAM_WAIT_VALUE_NOR:
      return static_cast<Word>(~(now | wanted)) != 0;
    default:  // CU_STREAM_WAIT_VALUE_GEQ, cyclic
      return static_cast<Signed>(static_cast<Word>(now - wanted)) >= 0;
  }
}

template <typename Word>
bool Holds(const Operation& operation) {
  // The host may write it meanwhile.
  const auto* word = static_cast<const Word*>(PointerTo(operation.address));
  const Word now = __atomic_load_n(word, __ATOMIC_RELAXED);
  return Holds<Word>(now, static_cast<Word>(operation.value), operation.flags);
}

Work WorkOf(const Operation& operation) {
  Work work;
  const size_t bytes = BytesOf(operation);
  if (operation.type == CU_STREAM_MEM_OP_BARRIER) {
    work.what = "memory barrier";
  } else if (IsWait(operation)) {
    work.what = "wait for a value";
    work.reads = {{operation.address, bytes}};
    work.until = [operation, bytes] {
      return bytes == 8 ? Holds<uint64_t>(operation) : Holds<uint32_t>(operation);
    };
  } else {
    work.what = "write of a value";
    work.writes = {{operation.address, bytes}};
    // The host may look at it, or write it, meanwhile.
    work.effect = [operation, bytes](CUresult) {
      void* const word = PointerTo(operation.address);
      if (bytes == 8) {
        __atomic_store_n(static_cast<uint64_t*>(word), operation.value, __ATOMIC_RELEASE);
      } else {
        __atomic_store_n(static_cast<uint32_t*>(word), static_cast<uint32_t>(operation.value),
                         __ATOMIC_RELEASE);
      }
    };
  }
  return work;
}

// All or none.
CUresult SubmitAll(Simulation& sim, CUstream handle, DefaultStream null_means,
                   const std::vector<Operation>& operations) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  for (const Operation& operation : operations) {
    const CUresult checked = Check(operation);
    if (checked != CUDA_SUCCESS) return checked;
    if (stream->capture == nullptr && !IsWhereItMayBe(sim, operation)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  for (const Operation& operation : operations) {
    Work work = WorkOf(operation);
    if (!IsWhereItMayBe(sim, operation)) work.refused = Work::Refused::kWhenLaunched;
    const CUresult submitted = SubmitWork(sim, *stream, std::move(work));
    if (submitted != CUDA_SUCCESS) return submitted;
  }
  return CUDA_SUCCESS;
}

CUresult SubmitBatch(Simulation& sim, CUstream stream, DefaultStream null_means, unsigned count,
                     const CUstreamBatchMemOpParams* parameters, unsigned flags) {
  if (parameters == nullptr || count == 0 || count > 256 || flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::vector<Operation> operations;
  for (const auto* each = parameters; each != parameters + count; ++each) {
    switch (each->operation) {
      case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        operations.push_back({each->operation, each->waitValue.address, each->waitValue.value,
                              each->waitValue.flags});
        break;
      case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        operations.push_back({each->operation, each->waitValue.address, each->waitValue.value64,
                              each->waitValue.flags});
        break;
      case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        operations.push_back({each->operation, each->writeValue.address, each->writeValue.value,
                              each->writeValue.flags});
        break;
      case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        operations.push_back({each->operation, each->writeValue.address, each->writeValue.value64,
                              each->writeValue.flags});
        break;
      case CU_STREAM_MEM_OP_BARRIER:
      case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        operations.push_back({each->operation, 0, 0, 0});
        break;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return SubmitAll(sim, stream, null_means, operations);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                              unsigned int flags) {
  return Enter("cuStreamWriteValue32", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWriteValue32_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                   unsigned int flags) {
  return Enter("cuStreamWriteValue32_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                 unsigned int flags) {
  return Enter("cuStreamWriteValue32_v2", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWriteValue32_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                      unsigned int flags) {
  return Enter("cuStreamWriteValue32_v2_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWaitValue32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                             unsigned int flags) {
  return Enter("cuStreamWaitValue32", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWaitValue32_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                  unsigned int flags) {
  return Enter("cuStreamWaitValue32_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                unsigned int flags) {
  return Enter("cuStreamWaitValue32_v2", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWaitValue32_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                     unsigned int flags) {
  return Enter("cuStreamWaitValue32_v2_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_32, address, value, flags}});
  });
}

CUresult cuStreamWriteValue64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                              unsigned int flags) {
  return Enter("cuStreamWriteValue64", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWriteValue64_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                   unsigned int flags) {
  return Enter("cuStreamWriteValue64_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                 unsigned int flags) {
  return Enter("cuStreamWriteValue64_v2", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWriteValue64_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                      unsigned int flags) {
  return Enter("cuStreamWriteValue64_v2_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWaitValue64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                             unsigned int flags) {
  return Enter("cuStreamWaitValue64", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWaitValue64_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                  unsigned int flags) {
  return Enter("cuStreamWaitValue64_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                unsigned int flags) {
  return Enter("cuStreamWaitValue64_v2", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kLegacy,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamWaitValue64_v2_ptsz(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                     unsigned int flags) {
  return Enter("cuStreamWaitValue64_v2_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, stream, kPerThread,
                     {{CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags}});
  });
}

CUresult cuStreamBatchMemOp(CUstream stream, unsigned int count,
                            CUstreamBatchMemOpParams* parameters, unsigned int flags) {
  return Enter("cuStreamBatchMemOp", [&](Simulation& sim, Lock&) {
    return SubmitBatch(sim, stream, kLegacy, count, parameters, flags);
  });
}

CUresult cuStreamBatchMemOp_ptsz(CUstream stream, unsigned int count,
                                 CUstreamBatchMemOpParams* parameters, unsigned int flags) {
  return Enter("cuStreamBatchMemOp_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitBatch(sim, stream, kPerThread, count, parameters, flags);
  });
}

CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned int count,
                               CUstreamBatchMemOpParams* parameters, unsigned int flags) {
  return Enter("cuStreamBatchMemOp_v2", [&](Simulation& sim, Lock&) {
    return SubmitBatch(sim, stream, kLegacy, count, parameters, flags);
  });
}

CUresult cuStreamBatchMemOp_v2_ptsz(CUstream stream, unsigned int count,
                                    CUstreamBatchMemOpParams* parameters, unsigned int flags) {
  return Enter("cuStreamBatchMemOp_v2_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitBatch(sim, stream, kPerThread, count, parameters, flags);
  });
}

}  // extern "C"
