"""What every function of the CUDA driver does to the pool's promises. Edited by hand.

EFFECTS: for each effect, groups of (treatment, reason, names). A name stands for every ABI version
and per-thread variant of the function, and may stand under several effects. The treatments:

    served   our definition answers
    noted    the real call, with something noted around it
    paid     what frees did not wait for is waited for, then the real call
    real     not interposed

A function is interposed if it is so under one of its effects. ABI versions with 32-bit addresses (before
CUDA 3.2) are not.
"""

# What there is. `submits` is followed by a kind (KINDS).
MEANINGS = {
    "looks up": "gives the program pointers to functions of the driver",
    "allocates": "memory of the device, or what takes some",
    "frees": "memory that an allocation gave",
    "submits": "gives the GPU work",
    "waits": "returns when earlier work is done",
    "tells of completion": "the host learns from the answer whether earlier work is done",
    "tells about memory": "which allocations there are, how large, how much is free",
    "shares": "the host, other devices or other processes may use memory that kernels use",
    "must pay": "ends what work may still use, and does not wait for that work",
    "makes a context": "or a first reference to one",
    "ends a context": "or may",
    "captures": "begins or ends the capture of a stream",
    "ends a handle": "whose value may name another object afterwards",
}

EFFECTS = {
    "looks up": (
        ("served", "the real answer, or ours for it", "cuGetProcAddress"),
    ),
    "allocates": (
        ("served", "from the pool", "cuMemAlloc cuMemAllocPitch"),
        ("noted", "not from the pool, which makes room", """
            cuMemAllocManaged cuMemAllocAsync cuMemAllocFromPoolAsync cuMemCreate cuArrayCreate
            cuArray3DCreate cuMipmappedArrayCreate"""),
    ),
    "frees": (
        ("served", "to the pool what is of the pool", "cuMemFree cuMemFreeAsync"),
    ),
    "tells about memory": (
        ("served", "as without the pool: idle blocks are free, sizes those that were asked for", """
            cuMemGetInfo cuMemGetAddressRange cuPointerGetAttribute cuPointerGetAttributes"""),
    ),
    "shares": (
        ("noted", "an attribute of an allocation stays with it: its block is not handed out again",
         "cuPointerSetAttribute"),
        ("noted", "export of a block: it is not handed out again", """
            cuIpcGetMemHandle cuMemGetHandleForAddressRange"""),
        ("noted", "exports", """
            cuIpcGetEventHandle cuMemExportToShareableHandle cuMemPoolExportToShareableHandle
            cuMemPoolExportPointer"""),
        ("noted", "imports", """
            cuIpcOpenMemHandle cuIpcOpenEventHandle cuMemImportFromShareableHandle
            cuMemPoolImportFromShareableHandle cuMemPoolImportPointer cuImportExternalMemory
            cuImportExternalSemaphore cuGraphicsGLRegisterBuffer cuGraphicsGLRegisterImage
            cuGLRegisterBufferObject cuGraphicsEGLRegisterImage
            cuGraphicsVDPAURegisterVideoSurface cuGraphicsVDPAURegisterOutputSurface
            cuEGLStreamConsumerConnect cuEGLStreamConsumerConnectWithFlags
            cuEGLStreamProducerConnect"""),
        ("noted", "page-locked memory begins, ends, or is mapped for kernels", """
            cuMemHostAlloc cuMemAllocHost cuMemFreeHost cuMemHostRegister cuMemHostUnregister
            cuMemHostGetDevicePointer"""),
        ("noted", "a variable may be managed memory", """
            cuModuleGetGlobal cuLibraryGetGlobal cuLibraryGetManaged"""),
        ("noted", "a pool may lie with the host, or be managed memory", """
            cuMemPoolCreate cuMemGetDefaultMemPool cuMemGetMemPool"""),
        ("noted", "gives access to the host, or to another device", """
            cuMemPoolSetAccess cuMemSetAccess"""),
    ),
    "must pay": (
        ("paid", "objects and code that kernels use", """
            cuTexObjectDestroy cuSurfObjectDestroy cuLibraryUnload"""),
        ("paid", "mappings of memory, and the memory behind them", """
            cuMemUnmap cuMemRelease cuMemAddressFree cuMemPoolDestroy cuMulticastUnbind"""),
        ("paid", "takes access away, too", "cuMemSetAccess cuMemPoolSetAccess"),
        ("paid", "what others share with kernels", """
            cuIpcCloseMemHandle cuDestroyExternalMemory cuDestroyExternalSemaphore
            cuGraphicsUnregisterResource cuCtxDisablePeerAccess"""),
    ),
    "makes a context": (
        ("noted", "it has a pool of its own from now on", """
            cuDevicePrimaryCtxRetain cuCtxCreate"""),
        ("noted", "part of a device: every call is real from now on", "cuCtxFromGreenCtx"),
    ),
    "ends a context": (
        ("noted", "its pool is dropped", """
            cuCtxDetach cuCtxDestroy cuDevicePrimaryCtxRelease cuDevicePrimaryCtxReset"""),
        ("noted", "its streams end with it", "cuGreenCtxDestroy"),
    ),
    "waits": (
        ("noted", "what it waited for is done", """
            cuCtxSynchronize cuStreamSynchronize cuEventSynchronize"""),
    ),
    "tells of completion": (
        ("noted", "what frees did not wait for is waited for where it alone is missing", """
            cuStreamQuery cuEventQuery cuEventElapsedTime"""),
    ),
    "ends a handle": (
        ("noted", "of an event", "cuEventDestroy"),
        ("noted", "of a stream, and its capture with it", "cuStreamDestroy"),
    ),
    "captures": (
        ("noted", "nothing is recorded, and frees are real, until it ends", """
            cuStreamBeginCapture cuStreamBeginCaptureToGraph cuStreamEndCapture"""),
    ),
    "submits Launch": (("noted", "", """
        cuLaunchKernel cuLaunchKernelEx cuLaunchCooperativeKernel
        cuLaunchCooperativeKernelMultiDevice cuLaunch cuLaunchGrid cuLaunchGridAsync"""),),
    "submits Copy": (("noted", "", """
        cuMemcpy cuMemcpyPeer cuMemcpyHtoD cuMemcpyDtoD cuMemcpyDtoA cuMemcpyAtoD cuMemcpyHtoA
        cuMemcpyAtoH cuMemcpyAtoA cuMemcpy2D cuMemcpy2DUnaligned cuMemcpy3D cuMemcpy3DPeer"""),),
    "submits CopyToHost": (("noted", "", "cuMemcpyDtoH"),),
    "submits AsyncCopy": (("noted", "", """
        cuMemcpyAsync cuMemcpyPeerAsync cuMemcpyHtoDAsync cuMemcpyDtoHAsync cuMemcpyDtoDAsync
        cuMemcpyHtoAAsync cuMemcpyAtoHAsync cuMemcpy2DAsync cuMemcpy3DAsync cuMemcpy3DPeerAsync
        cuMemcpyWithAttributesAsync"""),),
    "submits CopyList": (("noted", "", """
        cuMemcpyBatchAsync cuMemcpy3DBatchAsync cuMemcpy3DWithAttributesAsync
        cuFabricCpyBatchAsync"""),),
    "submits Set": (("noted", "", """
        cuMemsetD8 cuMemsetD16 cuMemsetD32 cuMemsetD2D8 cuMemsetD2D16 cuMemsetD2D32"""),),
    "submits AsyncSet": (("noted", "", """
        cuMemsetD8Async cuMemsetD16Async cuMemsetD32Async cuMemsetD2D8Async cuMemsetD2D16Async
        cuMemsetD2D32Async"""),),
    "submits GraphLaunch": (("noted", "", "cuGraphLaunch"),),
    "submits HostFunction": (("noted", "", "cuLaunchHostFunc cuStreamAddCallback"),),
    "submits StreamMemoryOperation": (("noted", "", """
        cuStreamWaitValue32 cuStreamWaitValue64 cuStreamWriteValue32 cuStreamWriteValue64
        cuStreamBatchMemOp"""),),
    "submits EventRecord": (("noted", "", """
        cuEventRecord cuEventRecordWithFlags cuCtxRecordEvent cuGreenCtxRecordEvent"""),),
    "submits EventWait": (("noted", "", "cuStreamWaitEvent cuCtxWaitEvent cuGreenCtxWaitEvent"),),
    "submits Other": (("noted", "", """
        cuMemPrefetchAsync cuMemPrefetchBatchAsync cuMemDiscardBatchAsync
        cuMemDiscardAndPrefetchBatchAsync cuMemBatchDecompressAsync cuMemMapArrayAsync
        cuStreamAttachMemAsync cuGraphUpload cuGraphInstantiateWithParams
        cuSignalExternalSemaphoresAsync cuWaitExternalSemaphoresAsync
        cuGraphicsMapResources cuGraphicsUnmapResources
        cuGLMapBufferObject cuGLUnmapBufferObject cuGLMapBufferObjectAsync
        cuGLUnmapBufferObjectAsync
        cuEGLStreamConsumerAcquireFrame cuEGLStreamConsumerReleaseFrame
        cuEGLStreamProducerReturnFrame"""),),
}

# Older ABI versions that CUDA 3.2 replaced, but not for 32-bit addresses.
NOT_OF_32_BITS = ("cuCtxCreate", "cuGLCtxCreate", "cuVDPAUCtxCreate")

# The kinds of submissions, one definition each in shim/entry_submissions.cpp.
KINDS = {
    "Launch": "kernels",
    "Copy": "copies that are done, or touch nothing of the host's, when they return",
    "CopyToHost": "of those, the ones that wait for all earlier work of their stream",
    "AsyncCopy": "copies whose memory is named by the arguments",
    "CopyList": "copies whose memory is named in lists and structures that are not looked into",
    "Set": "sets; of page-locked memory they are done when they return",
    "AsyncSet": "sets that may be pending when they return",
    "GraphLaunch": "launches of a graph, which may hold all of these",
    "HostFunction": "functions that the host runs in stream order",
    "StreamMemoryOperation": "waits for and writes of single values in memory",
    "EventRecord": "a point in submitted work: orders, touches no memory",
    "EventWait": "later work waits for such a point: orders, touches no memory",
    "Other": "none of these; what they touch is not looked at",
}
