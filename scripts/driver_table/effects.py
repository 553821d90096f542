"""What every function of the CUDA driver does to the pool's promises. Edited by hand.

EFFECTS has for each effect groups of (treatment, reason, names). A name stands for every ABI
version and per-thread variant of the function, and may stand under several effects. Treatments:

    served    our definition answers
    noted     the real call, with something noted around it
    paid      what frees did not wait for is waited for, then the real call
    retried   the real call, and again where memory ran out, each time that the pool gave some back
              (a few times: shim/calls/rescue.h)
    watched   the real call, whose status may tell of a crash (shim/calls/broken_contexts.cpp), as
              that of every call does that is interposed
    real      nothing needs to be done for this effect, for the reason given
    missing   something would need to be done, and is not yet, as scripts/docs/what-it-serves.md
              says

A function is interposed if it is served, noted, paid, retried or watched under one of its effects.
ABI versions of before CUDA 3.2, with 32-bit addresses and sizes, are not: no program that was built
since can be given them, and no pointer of the pool fits in their parameters.

Every function that may run out of memory is retried, or has its reason not to be; where the headers
say so of one, a test sees to that (tests/docs/test_headers.py). The reason of one
that is retried begins with a word of NEEDS, which says what it can be short of.
"""

MEANINGS = {
    "looks up": "gives the program the driver's functions",
    "allocates": "gives the program memory",
    "frees": "takes memory back",
    "submits": "gives the GPU work",
    "waits": "returns when earlier work is done",
    "tells of completion": "says whether earlier work is done",
    "tells of a crash": "of earlier work, by its status or from the next call on",
    "tells about memory": "says which allocations there are, how large, how much is free",
    "names memory": "that it will copy or set: refused where the program has it no more",
    "shares": "lets the host, other devices or processes use memory that kernels use",
    "must pay": "ends what work may still use, without waiting for it",
    "makes a context": "or a reference to one",
    "ends a context": "or gives up a reference to one",
    "captures": "begins or ends a stream's capture",
    "records an event": "from which the program learns that earlier work is done",
    "sets up a pool": "of stream-ordered memory: what it keeps, or that a device uses it",
    "ends a handle": "which may name another object afterwards",
    "may run out of memory, again": "and may be tried again when memory was released",
    "may run out of memory, never again": "and may have begun in part",
    "may run out of memory of the host": "but asks for none that the pool could give back",
    "nothing": "none of these",
}

EFFECTS = {
    "looks up": (
        ("served", "the real answer, or ours for it", "cuGetProcAddress"),
        ("missing", "private tables: work through them is not seen", "cuGetExportTable"),
    ),
    "allocates": (
        ("served", "from the pool", "cuMemAlloc cuMemAllocPitch"),
        ("noted", "not from the pool, which makes room", """
            cuMemAllocManaged cuMemAllocAsync cuMemAllocFromPoolAsync cuMemCreate"""),
        ("retried", "not from the pool, which makes room", """
            cuArrayCreate cuArray3DCreate cuMipmappedArrayCreate"""),
        ("served", "memory of the host, where CMP_HOST says so; else noted",
         "cuMemHostAlloc cuMemAllocHost"),
    ),
    "frees": (
        ("served", "to the pool what is of the pool", "cuMemFree"),
        ("noted", "in stream order, not to the pool; a block of the pool is forgotten",
         "cuMemFreeAsync"),
        ("served", "memory of the host, likewise", "cuMemFreeHost"),
        ("paid", "not of the pool", "cuMemRelease cuMemPoolDestroy"),
        ("real", "not of the pool, and waits by itself (measured)", """
            cuArrayDestroy cuMipmappedArrayDestroy"""),
        ("real", "what is idle in the driver's own pools", """
            cuMemPoolTrimTo cuDeviceGraphMemTrim"""),
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
        cuMemcpyBatchAsync cuMemcpy3DBatchAsync cuMemcpy3DWithAttributesAsync"""),),
    "submits OpaqueCopyList": (("noted", "", "cuFabricCpyBatchAsync"),),
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
    "submits Other": (
        ("noted", "", """
            cuMemPrefetchAsync cuMemPrefetchBatchAsync cuMemDiscardBatchAsync
            cuMemDiscardAndPrefetchBatchAsync cuMemBatchDecompressAsync cuMemMapArrayAsync
            cuStreamAttachMemAsync cuGraphUpload cuGraphInstantiateWithParams
            cuSignalExternalSemaphoresAsync cuWaitExternalSemaphoresAsync
            cuGraphicsMapResources cuGraphicsUnmapResources
            cuGLMapBufferObject cuGLUnmapBufferObject cuGLMapBufferObjectAsync
            cuGLUnmapBufferObjectAsync
            cuEGLStreamConsumerAcquireFrame cuEGLStreamConsumerReleaseFrame
            cuEGLStreamProducerReturnFrame"""),
        ("missing", "passes a structure by value that only EGL's own headers declare",
         "cuEGLStreamProducerPresentFrame"),
    ),
    # Allocations and frees, defined with them: no rows of shim/lookup/submissions.inc.
    "submits in stream order": (
        ("noted", "more than a submission", """
            cuMemAllocAsync cuMemAllocFromPoolAsync cuMemFreeAsync"""),
    ),
    "waits": (
        ("noted", "what it waited for is done", """
            cuCtxSynchronize cuStreamSynchronize cuEventSynchronize cuMemcpyDtoH"""),
        ("noted", "page-locked memory: its end waits (measured)", """
            cuMemFreeHost cuMemHostUnregister"""),
        ("noted", "the end of a context (measured)", """
            cuCtxDestroy cuDevicePrimaryCtxRelease cuDevicePrimaryCtxReset"""),
        ("watched", "for the device (measured); that it did is learned from the next fence", """
            cuArrayDestroy cuMipmappedArrayDestroy"""),
        ("real", "for the device, likewise", """
            cuModuleUnload cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleLoadFatBinary"""),
        ("real", "for copies of a checkpoint, of streams that it made itself",
         "cuCheckpointOperationComplete"),
    ),
    "tells of completion": (
        ("noted", "what frees did not wait for is waited for where it alone is missing", """
            cuStreamQuery cuEventQuery cuEventElapsedTime"""),
    ),
    "tells of a crash": (
        ("noted", "finds out and succeeds (measured): then it is asked for", """
            cuStreamDestroy cuModuleUnload cuGraphExecDestroy"""),
        ("watched", "asks about streams, or whether they are capturing", """
            cuStreamGetPriority cuStreamGetId cuStreamGetFlags cuStreamGetDevice cuStreamGetCtx
            cuStreamGetGreenCtx cuStreamGetDevResource cuStreamGetAttribute cuStreamIsCapturing
            cuStreamGetCaptureInfo"""),
        ("watched", "attributes of a stream, not its work", """
            cuStreamSetAttribute cuStreamCopyAttributes"""),
        ("watched", "changes what is captured", "cuStreamUpdateCaptureDependencies"),
    ),
    "tells about memory": (
        ("served", "as without the pool: idle blocks are free, sizes those that were asked for", """
            cuMemGetInfo cuMemGetAddressRange cuPointerGetAttribute cuPointerGetAttributes"""),
        ("served", "page-locked memory that is idle is none of the program's",
         "cuMemHostGetFlags cuMemHostGetDevicePointer"),
        ("real", "about memory that is never of the pool", """
            cuMemGetAccess cuMemGetAllocationPropertiesFromHandle cuMemRetainAllocationHandle
            cuMemRangeGetAttribute cuMemRangeGetAttributes
            cuMemPoolGetAccess cuDeviceGetGraphMemAttribute cuMemGetLocationInfo"""),
        ("served", "as if a pool kept nothing and had its own threshold", "cuMemPoolGetAttribute"),
        ("missing", "counts idle blocks as used", "cuDeviceRegisterAsyncNotification"),
        ("missing", "saves idle blocks too", "cuCheckpointProcessCheckpoint"),
    ),
    "names memory": (
        ("noted", "the null pointer in its place is refused as what was freed is", """
            cuGraphAddMemcpyNode cuGraphAddMemsetNode cuGraphMemcpyNodeSetParams
            cuGraphMemsetNodeSetParams cuGraphExecMemcpyNodeSetParams cuGraphExecMemsetNodeSetParams
            cuGraphAddNode cuGraphNodeSetParams cuGraphExecNodeSetParams"""),
    ),
    "shares": (
        ("noted", "an attribute stays with its allocation: the block is not handed out again",
         "cuPointerSetAttribute"),
        ("noted", "export of a block: it is not handed out again", """
            cuIpcGetMemHandle cuMemGetHandleForAddressRange"""),
        ("noted", "exports", """
            cuIpcGetEventHandle cuMemExportToShareableHandle cuMemPoolExportToShareableHandle
            cuMemPoolExportPointer cuLogicalEndpointExport"""),
        ("noted", "imports", """
            cuIpcOpenMemHandle cuIpcOpenEventHandle cuMemImportFromShareableHandle
            cuMemPoolImportFromShareableHandle cuMemPoolImportPointer cuImportExternalMemory
            cuImportExternalSemaphore cuLogicalEndpointImport cuGraphicsGLRegisterBuffer
            cuGraphicsGLRegisterImage cuGLRegisterBufferObject cuGraphicsEGLRegisterImage
            cuGraphicsVDPAURegisterVideoSurface cuGraphicsVDPAURegisterOutputSurface
            cuEGLStreamConsumerConnect cuEGLStreamConsumerConnectWithFlags
            cuEGLStreamProducerConnect cuEventCreateFromEGLSync"""),
        ("real", "of an import that was noted", """
            cuExternalMemoryGetMappedBuffer cuExternalMemoryGetMappedMipmappedArray
            cuGraphicsResourceGetMappedPointer cuGraphicsResourceGetMappedMipmappedArray
            cuGraphicsResourceGetMappedEglFrame cuGraphicsSubResourceGetMappedArray"""),
        ("noted", "page-locked memory begins, ends, or is mapped for kernels", """
            cuMemHostAlloc cuMemAllocHost cuMemFreeHost cuMemHostRegister cuMemHostUnregister
            cuMemHostGetDevicePointer"""),
        ("noted", "managed memory, or a variable that may be", """
            cuMemAllocManaged cuModuleGetGlobal cuLibraryGetGlobal cuLibraryGetManaged"""),
        ("noted", "memory or a pool that may lie with the host, or be managed", """
            cuMemCreate cuMemPoolCreate cuMemGetDefaultMemPool cuMemGetMemPool"""),
        ("real", "a pool that was noted when it was made", """
            cuDeviceGetMemPool cuDeviceGetDefaultMemPool"""),
        ("noted", "gives access to the host, or to another device", """
            cuMemPoolSetAccess cuMemSetAccess"""),
        ("noted", "with another device of this process: links them for the reuse of memory", """
            cuCtxEnablePeerAccess cuMulticastCreate cuLogicalEndpointCreate"""),
        ("real", "of what was noted when it was made", """
            cuMulticastAddDevice cuMulticastBindMem cuMulticastBindAddr
            cuLogicalEndpointAddDevice cuLogicalEndpointBindMem cuLogicalEndpointBindAddr"""),
        ("real", "memory that is visible already", "cuMemAdvise cuMemMap"),
    ),
    "must pay": (
        ("paid", "objects and code that kernels use", """
            cuTexObjectDestroy cuSurfObjectDestroy cuLibraryUnload"""),
        ("paid", "mappings of memory, and the memory behind them", """
            cuMemUnmap cuMemRelease cuMemAddressFree cuMemPoolDestroy cuMulticastUnbind
            cuLogicalEndpointUnbind cuLogicalEndpointDestroy"""),
        ("paid", "takes access away, too", "cuMemSetAccess cuMemPoolSetAccess"),
        ("paid", "what others share with kernels", """
            cuIpcCloseMemHandle cuDestroyExternalMemory cuDestroyExternalSemaphore
            cuGraphicsUnregisterResource cuGLUnregisterBufferObject cuEGLStreamConsumerDisconnect
            cuEGLStreamProducerDisconnect cuCtxDisablePeerAccess"""),
        ("real", "lives on in the driver until its work is done", """
            cuGraphExecDestroy cuStreamDestroy cuEventDestroy cuUserObjectRelease
            cuGraphReleaseUserObject cuMemFreeAsync"""),
    ),
    "makes a context": (
        ("noted", "it has a pool of its own from now on", """
            cuDevicePrimaryCtxRetain cuCtxCreate cuGLCtxCreate cuVDPAUCtxCreate"""),
        ("noted", "part of a device: every call is real from now on", "cuCtxFromGreenCtx"),
        ("real", "one more reference: it is known, or there is no pool in it", """
            cuCtxAttach cuGreenCtxCreate"""),
    ),
    "ends a context": (
        ("noted", "its pool is dropped", """
            cuCtxDetach cuCtxDestroy cuDevicePrimaryCtxRelease cuDevicePrimaryCtxReset"""),
        ("noted", "its streams end with it, and a reference to the primary context",
         "cuGreenCtxDestroy"),
    ),
    "captures": (
        ("noted", "nothing is recorded, and frees are real, until it ends", """
            cuStreamBeginCapture cuStreamBeginCaptureToGraph cuStreamBeginRecaptureToGraph
            cuStreamEndCapture"""),
        ("missing", "into a command list of a graphics API", """
            cuStreamBeginCaptureToCig cuStreamEndCaptureToCig"""),
    ),
    "records an event": (
        ("noted", "where it was recorded is known", "cuEventRecord cuEventRecordWithFlags"),
        ("noted", "of a whole context: nothing is learned from it", """
            cuCtxRecordEvent cuGreenCtxRecordEvent"""),
        ("noted", "by nodes: no event is known afterwards", "cuGraphLaunch"),
        ("noted", "by an attribute of the launch: the event is not known afterwards",
         "cuLaunchKernelEx"),
    ),
    "sets up a pool": (
        ("noted", "the driver's own pools keep memory: CMP_ASYNC_KEEP", """
            cuMemPoolCreate cuMemPoolSetAttribute cuMemSetMemPool cuDeviceSetMemPool"""),
    ),
    "ends a handle": (
        ("noted", "of a pool", "cuMemPoolDestroy"),
        ("noted", "of an event", "cuEventDestroy"),
        ("noted", "of a stream, and its capture with it", "cuStreamDestroy"),
        ("noted", "of a context", """
            cuCtxDestroy cuCtxDetach cuDevicePrimaryCtxRelease cuDevicePrimaryCtxReset
            cuGreenCtxDestroy"""),
    ),
    "may run out of memory, again": (
        ("served", "by the pool, which tries again by itself", "cuMemAlloc"),
        ("retried", "bytes: its second argument", """
            cuMemAllocAsync cuMemAllocFromPoolAsync cuMemCreate cuMemPrefetchAsync"""),
        ("retried", "sized: at least as large as its description says", """
            cuMemAllocPitch cuArrayCreate cuArray3DCreate cuMipmappedArrayCreate"""),
        ("retried", "unknown: takes the device's memory only when it is used", """
            cuMemAllocManaged"""),
        ("retried", "host: page-locked memory, and page tables of every device for it", """
            cuMemHostAlloc cuMemAllocHost cuMemHostRegister"""),
        ("retried", "unknown: a context", """
            cuDevicePrimaryCtxRetain cuCtxCreate cuGLCtxCreate cuVDPAUCtxCreate cuGreenCtxCreate
            cuCtxFromGreenCtx"""),
        ("retried", "limit: as it says, the stack for every thread of the device", "cuCtxSetLimit"),
        ("retried", "described here: code and variables of an image", """
            cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleLoadFatBinary"""),
        ("retried", "described: code and variables of an image, for every context", """
            cuLibraryLoadData cuLibraryLoadFromFile"""),
        # Of the module's context, which need not be the current one.
        ("retried", "any: code and variables that are loaded when they are asked for", """
            cuModuleGetFunction cuModuleGetGlobal cuModuleGetTexRef cuModuleGetSurfRef
            cuLibraryGetKernel cuLibraryGetModule cuLibraryGetGlobal cuLibraryGetManaged
            cuLibraryGetUnifiedFunction cuKernelGetFunction cuKernelGetAttribute
            cuKernelSetAttribute cuKernelSetCacheConfig cuFuncLoad cuFuncGetAttribute
            cuFuncSetAttribute cuFuncSetCacheConfig cuFuncSetSharedMemConfig
            cuOccupancyMaxActiveBlocksPerMultiprocessor
            cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxPotentialBlockSize
            cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyAvailableDynamicSMemPerBlock
            cuOccupancyMaxPotentialClusterSize cuOccupancyMaxActiveClusters"""),
        ("retried", "launch: local memory of the kernel, heap, code", """
            cuLaunchKernel cuLaunchKernelEx cuLaunchCooperativeKernel cuLaunch cuLaunchGrid
            cuLaunchGridAsync"""),
        ("retried", "unknown: kernels of the driver's own, staging memory of either side", """
            cuMemcpy cuMemcpyPeer cuMemcpyHtoD cuMemcpyDtoH cuMemcpyDtoD cuMemcpyDtoA cuMemcpyAtoD
            cuMemcpyHtoA cuMemcpyAtoH cuMemcpyAtoA cuMemcpy2D cuMemcpy2DUnaligned cuMemcpy3D
            cuMemcpy3DPeer cuMemcpyAsync cuMemcpyPeerAsync cuMemcpyHtoDAsync cuMemcpyDtoHAsync
            cuMemcpyDtoDAsync cuMemcpyHtoAAsync cuMemcpyAtoHAsync cuMemcpy2DAsync cuMemcpy3DAsync
            cuMemcpy3DPeerAsync cuMemcpyWithAttributesAsync cuMemcpy3DWithAttributesAsync"""),
        ("retried", "unknown here: kernels of the driver's own", """
            cuMemsetD8 cuMemsetD16 cuMemsetD32 cuMemsetD2D8 cuMemsetD2D16 cuMemsetD2D32
            cuMemsetD8Async cuMemsetD16Async cuMemsetD32Async cuMemsetD2D8Async cuMemsetD2D16Async
            cuMemsetD2D32Async"""),
        ("retried", "unknown here: queues and events of the device", """
            cuStreamCreate cuStreamCreateWithPriority cuEventCreate cuEventCreateFromEGLSync"""),
        ("retried", "unknown: queues of the green context's device", "cuGreenCtxStreamCreate"),
        ("retried", "any: nodes that allocate, and the graph itself, on any device", """
            cuGraphInstantiate cuGraphInstantiateWithFlags cuGraphInstantiateWithParams
            cuGraphUpload cuGraphExecUpdate cuGraphAddChildGraphNode cuGraphConditionalHandleCreate
            cuGraphExecMemcpyNodeSetParams cuGraphExecMemsetNodeSetParams
            cuGraphExecChildGraphNodeSetParams"""),
        ("retried", "any: code of a kernel that is loaded when it is named", """
            cuGraphAddKernelNode cuGraphKernelNodeSetParams cuGraphExecKernelNodeSetParams"""),
        ("retried", "described: the same, and nodes that allocate, as a structure says", """
            cuGraphAddMemAllocNode cuGraphAddNode cuGraphNodeSetParams cuGraphExecNodeSetParams"""),
        ("retried", "graph: nodes that allocate; a launch that failed ran none of its nodes "
            "(measured on one device: not where others have contexts)", "cuGraphLaunch"),
        ("retried", "unknown: memory and objects of others", """
            cuIpcOpenMemHandle cuIpcOpenEventHandle cuMemImportFromShareableHandle
            cuMemPoolImportFromShareableHandle cuMemPoolImportPointer cuImportExternalMemory
            cuImportExternalSemaphore cuExternalMemoryGetMappedBuffer
            cuExternalMemoryGetMappedMipmappedArray cuLogicalEndpointImport
            cuGraphicsGLRegisterBuffer cuGraphicsGLRegisterImage cuGLRegisterBufferObject
            cuGLMapBufferObject cuGLMapBufferObjectAsync cuGraphicsEGLRegisterImage
            cuGraphicsVDPAURegisterVideoSurface
            cuGraphicsVDPAURegisterOutputSurface cuEGLStreamConsumerConnect
            cuEGLStreamConsumerConnectWithFlags cuEGLStreamProducerConnect
            cuEGLStreamConsumerAcquireFrame cuEGLStreamProducerReturnFrame"""),
        ("retried", "unknown: page tables of the device", """
            cuMemMap cuMemSetAccess cuMemAddressReserve cuMemAdvise
            cuMemPoolSetAccess cuCtxEnablePeerAccess cuMulticastCreate cuMulticastAddDevice
            cuMulticastBindMem cuMulticastBindAddr cuLogicalEndpointCreate
            cuLogicalEndpointAddDevice cuLogicalEndpointBindMem cuLogicalEndpointBindAddr"""),
        ("retried", "unknown: descriptors", "cuMemPoolCreate"),
        ("retried", "unknown here: descriptors", "cuTexObjectCreate cuSurfObjectCreate"),
        ("retried", "unknown: exports, the device's side of them", """
            cuIpcGetMemHandle cuIpcGetEventHandle cuMemPoolExportToShareableHandle
            cuMemPoolExportPointer cuLogicalEndpointExport"""),
    ),
    "may run out of memory, never again": (
        ("real", "one kernel of several may run already", "cuLaunchCooperativeKernelMultiDevice"),
        ("real", "some of its operations may be submitted already", """
            cuStreamBatchMemOp cuMemcpyBatchAsync cuMemcpy3DBatchAsync cuFabricCpyBatchAsync
            cuMemPrefetchBatchAsync cuMemDiscardAndPrefetchBatchAsync cuMemBatchDecompressAsync
            cuMemMapArrayAsync"""),
        ("real", "some of the resources may be mapped already", "cuGraphicsMapResources"),
        ("real", "in another process", "cuCheckpointProcessRestore"),
    ),
    "may run out of memory of the host": (
        ("real", "changes a graph; of a launch everything is expected", """
            cuGraphCreate cuGraphClone cuGraphBatchMemOpNodeSetParams
            cuGraphEventRecordNodeSetEvent cuGraphEventWaitNodeSetEvent
            cuGraphExternalSemaphoresSignalNodeSetParams
            cuGraphExternalSemaphoresWaitNodeSetParams"""),
        ("real", "asks", """
            cuStreamGetPriority cuStreamGetFlags cuStreamGetDevice
            cuDeviceGetNvSciSyncAttributes"""),
        ("real", "numbers of memory that is never of the pool, and questions about it", """
            cuLogicalEndpointIdReserve cuLogicalEndpointIdRelease cuLogicalEndpointGetLimits
            cuLogicalEndpointQuery"""),
        ("real", "gives memory back", "cuMemHostUnregister cuLogicalEndpointUnbind"),
        ("real", "functions of the host for core dumps", """
            cuCoredumpRegisterStartCallback cuCoredumpRegisterCompleteCallback"""),
    ),
    "nothing": (
        ("real", "begins, and asks about the driver", """
            cuInit cuDriverGetVersion cuGetErrorName cuGetErrorString"""),
        ("real", "asks about devices", """
            cuDeviceGet cuDeviceGetCount cuDeviceGetName cuDeviceGetUuid cuDeviceGetLuid
            cuDeviceGetAttribute cuDeviceGetProperties cuDeviceComputeCapability cuDeviceTotalMem
            cuDeviceGetByPCIBusId cuDeviceGetPCIBusId cuDeviceCanAccessPeer
            cuDeviceGetP2PAttribute cuDeviceGetP2PAtomicCapabilities
            cuDeviceGetHostAtomicCapabilities cuDeviceGetTexture1DLinearMaxWidth
            cuDeviceGetExecAffinitySupport cuDeviceGetDevResource cuDeviceGetCliqueCount
            cuDeviceGetCliqueInfo cuDeviceGetFabricClusterUuid cuDevicePrimaryCtxGetState
            cuGLGetDevices cuVDPAUGetDevice"""),
        ("real", "describes a part of a device", """
            cuDevResourceGenerateDesc cuDevSmResourceSplit cuDevSmResourceSplitByCount"""),
        ("real", "asks about contexts", """
            cuCtxGetApiVersion cuCtxGetCacheConfig cuCtxGetDevResource cuCtxGetDevice
            cuCtxGetExecAffinity cuCtxGetFlags cuCtxGetId cuCtxGetLimit cuCtxGetSharedMemConfig
            cuCtxGetStreamPriorityRange cuGreenCtxGetDevResource cuGreenCtxGetId"""),
        ("real", "which context is current is asked for in each call", """
            cuCtxGetCurrent cuCtxSetCurrent cuCtxPushCurrent cuCtxPopCurrent"""),
        ("real", "how a context works, not what memory it has", """
            cuCtxSetFlags cuCtxSetCacheConfig cuCtxSetSharedMemConfig cuCtxResetPersistingL2Cache
            cuDevicePrimaryCtxSetFlags cuGLInit"""),
        ("real", "asks about code", """
            cuModuleGetLoadingMode cuModuleGetFunctionCount cuModuleEnumerateFunctions
            cuLibraryGetKernelCount cuLibraryEnumerateKernels cuKernelGetLibrary cuKernelGetName
            cuKernelGetParamInfo cuKernelGetParamCount cuFuncGetModule cuFuncGetName
            cuFuncGetParamInfo cuFuncGetParamCount cuFuncIsLoaded"""),
        ("real", "links code, on the host", """
            cuLinkCreate cuLinkAddData cuLinkAddFile cuLinkComplete cuLinkDestroy"""),
        ("real", "parameters of the next launch, as before CUDA 4", """
            cuFuncSetBlockShape cuFuncSetSharedSize cuParamSetSize cuParamSetTexRef cuParamSetf
            cuParamSeti cuParamSetv"""),
        ("real", "asks about, and describes, textures, surfaces and arrays", """
            cuArrayGetDescriptor cuArray3DGetDescriptor cuArrayGetMemoryRequirements cuArrayGetPlane
            cuArrayGetSparseProperties cuMipmappedArrayGetLevel
            cuMipmappedArrayGetMemoryRequirements cuMipmappedArrayGetSparseProperties
            cuTexObjectGetResourceDesc cuTexObjectGetResourceViewDesc cuTexObjectGetTextureDesc
            cuSurfObjectGetResourceDesc cuTensorMapEncodeTiled cuTensorMapEncodeIm2col
            cuTensorMapEncodeIm2colWide cuTensorMapReplaceAddress cuTensorMapSetAllocationClass"""),
        ("real", "references to textures and surfaces, whose memory is the program's affair", """
            cuTexRefCreate cuTexRefDestroy cuTexRefGetAddress cuTexRefGetAddressMode
            cuTexRefGetArray cuTexRefGetBorderColor cuTexRefGetFilterMode cuTexRefGetFlags
            cuTexRefGetFormat cuTexRefGetMaxAnisotropy cuTexRefGetMipmapFilterMode
            cuTexRefGetMipmapLevelBias cuTexRefGetMipmapLevelClamp cuTexRefGetMipmappedArray
            cuTexRefSetAddress cuTexRefSetAddress2D cuTexRefSetAddressMode cuTexRefSetArray
            cuTexRefSetBorderColor cuTexRefSetFilterMode cuTexRefSetFlags cuTexRefSetFormat
            cuTexRefSetMaxAnisotropy cuTexRefSetMipmapFilterMode cuTexRefSetMipmapLevelBias
            cuTexRefSetMipmapLevelClamp cuTexRefSetMipmappedArray cuSurfRefGetArray
            cuSurfRefSetArray"""),
        ("real", "how mapped resources are used", """
            cuGraphicsResourceSetMapFlags cuGLSetBufferObjectMapFlags"""),
        ("real", "changes what a capture forbids", "cuThreadExchangeStreamCaptureMode"),
        ("real", "asks about graphs", """
            cuGraphGetEdges cuGraphGetNodes cuGraphGetRootNodes cuGraphGetId cuGraphDebugDotPrint
            cuGraphNodeFindInClone cuGraphNodeGetContainingGraph cuGraphNodeGetDependencies
            cuGraphNodeGetDependentNodes cuGraphNodeGetEnabled cuGraphNodeGetLocalId
            cuGraphNodeGetParams cuGraphNodeGetToolsId cuGraphNodeGetType
            cuGraphBatchMemOpNodeGetParams cuGraphChildGraphNodeGetGraph
            cuGraphEventRecordNodeGetEvent cuGraphEventWaitNodeGetEvent
            cuGraphExternalSemaphoresSignalNodeGetParams cuGraphExternalSemaphoresWaitNodeGetParams
            cuGraphHostNodeGetParams cuGraphKernelNodeGetAttribute cuGraphKernelNodeGetParams
            cuGraphMemAllocNodeGetParams cuGraphMemFreeNodeGetParams cuGraphMemcpyNodeGetParams
            cuGraphMemsetNodeGetParams cuGraphExecGetFlags cuGraphExecGetId"""),
        ("real", "changes a graph on the host; of a launch everything is expected", """
            cuGraphDestroy cuGraphDestroyNode cuGraphAddDependencies cuGraphRemoveDependencies
            cuGraphAddBatchMemOpNode cuGraphAddEmptyNode cuGraphAddEventRecordNode
            cuGraphAddEventWaitNode cuGraphAddExternalSemaphoresSignalNode
            cuGraphAddExternalSemaphoresWaitNode cuGraphAddHostNode cuGraphAddMemFreeNode
            cuGraphHostNodeSetParams cuGraphKernelNodeCopyAttributes
            cuGraphKernelNodeSetAttribute cuGraphNodeSetEnabled
            cuGraphExecBatchMemOpNodeSetParams cuGraphExecEventRecordNodeSetEvent
            cuGraphExecEventWaitNodeSetEvent cuGraphExecExternalSemaphoresSignalNodeSetParams
            cuGraphExecExternalSemaphoresWaitNodeSetParams cuGraphExecHostNodeSetParams
            cuUserObjectCreate cuUserObjectRetain cuGraphRetainUserObject"""),
        ("real", "asks about, and sets, how memory that is never of the pool is allocated", """
            cuMemGetAllocationGranularity cuMulticastGetGranularity
            cuDeviceSetGraphMemAttribute"""),
        ("real", "orders writes of other machines, no work", "cuFlushGPUDirectRDMAWrites"),
        ("real", "no more notifications", "cuDeviceUnregisterAsyncNotification"),
        ("real", "suspends a process, or asks about that", """
            cuCheckpointProcessLock cuCheckpointProcessUnlock cuCheckpointProcessGetState
            cuCheckpointProcessGetRestoreThreadId"""),
        ("real", "tools: logs, core dumps, profiles", """
            cuLogsCurrent cuLogsDumpToFile cuLogsDumpToMemory cuLogsRegisterCallback
            cuLogsUnregisterCallback cuCoredumpGetAttribute cuCoredumpGetAttributeGlobal
            cuCoredumpSetAttribute cuCoredumpSetAttributeGlobal
            cuCoredumpDeregisterStartCallback cuCoredumpDeregisterCompleteCallback
            cuProfilerInitialize cuProfilerStart cuProfilerStop"""),
    ),
}

# The kinds of submissions, one definition each in shim/entry/submissions.cpp.
KINDS = {
    "Launch": "kernels",
    "Copy": "copies that are done, or touch nothing of the host's, when they return",
    "CopyToHost": "of those, the ones that wait for all earlier work of their stream",
    "AsyncCopy": "copies whose memory is named by the arguments",
    "CopyList": "copies whose memory, and when it is read, is named in lists and structures",
    "OpaqueCopyList": "the same, in structures that no supported header describes",
    "Set": "sets; of page-locked memory they are done when they return",
    "AsyncSet": "sets that may be pending when they return",
    "GraphLaunch": "launches of a graph, which may hold all of these",
    "HostFunction": "functions that the host runs in stream order",
    "StreamMemoryOperation": "waits for and writes of single values in memory",
    "EventRecord": "a point in submitted work: orders, touches no memory",
    "EventWait": "later work waits for such a point: orders, touches no memory",
    "Other": "none of these; what they touch is not looked at",
}

# What the attributes of launches, which those of streams and kernel nodes are, too, do to the pool's
# promises: (treatment, reason, names without CU_LAUNCH_ATTRIBUTE_). Noted: shim/entry/submissions.cpp.
LAUNCH_ATTRIBUTES = (
    ("noted", "records an event, which is not known afterwards", """
        PROGRAMMATIC_EVENT LAUNCH_COMPLETION_EVENT"""),
    ("noted", "may begin before earlier work of its stream has ended", """
        PROGRAMMATIC_STREAM_SERIALIZATION PROGRAMMATIC_EVENT"""),
    ("real", "where and how fast a kernel runs, not after what", """
        IGNORE ACCESS_POLICY_WINDOW COOPERATIVE SYNCHRONIZATION_POLICY CLUSTER_DIMENSION
        CLUSTER_SCHEDULING_POLICY_PREFERENCE PRIORITY PREFERRED_CLUSTER_DIMENSION
        PREFERRED_SHARED_MEMORY_CARVEOUT NVLINK_UTIL_CENTRIC_SCHEDULING
        PORTABLE_CLUSTER_SIZE_MODE SHARED_MEMORY_MODE"""),
    ("real", "which writes of others its fences wait for", "MEM_SYNC_DOMAIN MEM_SYNC_DOMAIN_MAP"),
    ("real", "kernels may change the node; of a graph's launch everything is expected",
     "DEVICE_UPDATABLE_KERNEL_NODE"),
)

# What a call that is retried can be short of: the words with which its reason begins, and what they
# are in shim/calls/rescue.h.
NEEDS = {
    "bytes": "kBytes",
    "limit": "kLimit",
    "launch": "kLaunch",
    "sized": "kSized",
    "graph": "kGraph",
    "described": "kDescribed",
    "described here": "kDescribedHere",
    "any": "kAny",
    "unknown": "kUnknown",
    "unknown here": "kUnknownHere",
    "host": "kHost",
}

# Older ABI versions that CUDA 3.2 replaced, but not for 32-bit addresses.
NOT_OF_32_BITS = ("cuCtxCreate", "cuGLCtxCreate", "cuVDPAUCtxCreate")

# Asked for by the runtime (libcudart 13.3 and later), but in no header: what they do is not known.
UNDECLARED = ("cuSubgridCreate", "cuSubgridWorkerGridCreate", "cuSubgridWorksetCreate")
