"""What the generator makes of effects.py and declarations.txt: which symbols are interposed, what
each submits and on which stream, how its parameters are spelled."""

import re

from . import declarations, effects
from .headers import Function

PLAIN = ("retried", "watched")  # treatments that ask for no more than the real call
INTERPOSED = ("served", "noted", "paid", *PLAIN)
AGAIN = "may run out of memory, again"

# Where the stream is, for submissions that have no parameter of type CUstream. `{}` is what the
# variant's handle 0 means: Explicit, the legacy stream; PerThread, the thread's own.
STREAMS = {
    "cuLaunchKernelEx": "cmp::{}(cmp::StreamOf(config))",
    "cuGraphInstantiateWithParams": "cmp::{}(cmp::StreamOf(instantiateParams))",
    "cuEGLStreamConsumerAcquireFrame": "cmp::{}(cmp::StreamOf(pStream))",
    "cuEGLStreamConsumerReleaseFrame": "cmp::{}(cmp::StreamOf(pStream))",
    "cuEGLStreamProducerReturnFrame": "cmp::{}(cmp::StreamOf(pStream))",
    # One in each element of an array, of several contexts.
    "cuLaunchCooperativeKernelMultiDevice": "cmp::AnyStream()",
    # Every stream of the context.
    "cuCtxRecordEvent": "cmp::AnyStream()",
    "cuCtxWaitEvent": "cmp::AnyStream()",
    "cuGreenCtxRecordEvent": "cmp::AnyStream()",
    "cuGreenCtxWaitEvent": "cmp::AnyStream()",
}

# How types are spelled that some headers lack, or that are in headers other than cuda.h. Pointers
# to anything else than these and what C++ has are pointers to void: the same ABI.
POINTERS = set("""
    CUDA_ARRAY_DESCRIPTOR CUDA_ARRAY3D_DESCRIPTOR CUDA_GRAPH_INSTANTIATE_PARAMS CUDA_MEMCPY2D CUDA_MEMCPY3D CUDA_MEMCPY3D_PEER CUcontext
    CUdeviceptr CUevent CUgraph CUgraphNode CUipcEventHandle CUipcMemHandle CUlaunchConfig
    CUpointer_attribute CUstream char float int size_t unsigned void""".split())
# What is passed by value. CUmemLocation is a structure of two integers, or of as many bytes that are
# passed alike, in all headers.
BY_VALUE = {
    **{name: name for name in """
        CUarray CUcontext CUdevice CUdeviceptr CUevent CUfunction CUgraph CUgraphExec CUgraphNode
        CUhostFn CUipcEventHandle CUipcMemHandle CUlimit CUmemLocation CUmemPool_attribute CUmemoryPool CUmipmappedArray CUmodule
        CUoccupancyB2DSize CUpointer_attribute CUstream CUstreamCallback CUstreamCaptureMode
        cuuint32_t cuuint64_t float int size_t unsigned
        """.split()},
    "unsigned char": "unsigned char", "unsigned short": "unsigned short",
    "unsigned long long": "unsigned long long",
    **{handle: "void*" for handle in """
        CUdevResourceDesc CUexternalMemory CUexternalSemaphore CUgraphRecaptureCallback
        CUgraphicsResource CUgreenCtx CUkernel CUlibrary EGLImageKHR EGLStreamKHR EGLSyncKHR""".split()},
    **{handle: "unsigned long long" for handle in """
        CUmemGenericAllocationHandle CUsurfObject CUtexObject""".split()},
    **{enumeration: "int" for enumeration in """
        CUdevResourceType CUfunc_cache CUfunction_attribute CUlogicalEndpointIpcHandleType
        CUmemAllocationHandleType CUmemAllocationType CUmemRangeHandleType CUmem_advise
        CUsharedconfig CUstreamAttrID EGLint""".split()},
    **{name: "unsigned" for name in """
        CUlogicalEndpointId GLenum GLuint VdpDevice VdpOutputSurface VdpVideoSurface""".split()},
}

# Names that cuda.h gives to another function from a CUDA version on: name, version, symbol.
OTHER_NAMES = (("cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags"),)


class Table:
    """The functions by symbol, with their effects."""

    def __init__(self):
        self.headers, self.functions = declarations.read()
        self.named = {}  # name: its ABI versions and per-thread variants
        for function in sorted(self.functions.values(),
                               key=lambda each: (each.number, each.per_thread)):
            self.named.setdefault(function.name, []).append(function)
        self.groups = {}  # by name: (effect, treatment, reason) of each group
        self.order = []  # the names in the order of effects.py
        for effect, groups in effects.EFFECTS.items():
            for treatment, reason, names in groups:
                for name in names.split():
                    self.order += [name] if name not in self.groups else []
                    self.groups.setdefault(name, []).append((effect, treatment, reason))

    def has_32_bits(self, function: Function) -> bool:
        """Is it the ABI of before CUDA 3.2 with 32-bit addresses and sizes? No program that was
        built since can be given it, and no pointer of the pool fits in its parameters."""
        return (function.name not in effects.NOT_OF_32_BITS and function.version < 3020 and
                any(other.version == 3020 for other in self.named[function.name]))

    def undecided(self) -> list:
        """The symbols of functions that are under no effect."""
        return [function.symbol for function in self.functions.values()
                if function.name not in self.groups]

    def is_interposed(self, function: Function) -> bool:
        return not self.has_32_bits(function) and any(
            treatment in INTERPOSED for _, treatment, _ in self.groups.get(function.name, ()))

    def kind(self, function: Function):
        """The kind of a submission that is generated, or None."""
        for effect, treatment, _ in self.groups.get(function.name, ()):
            kind = effect.partition("submits ")[2]
            if kind in effects.KINDS and treatment in INTERPOSED:
                return None if self.has_32_bits(function) else kind
        return None

    def need(self, function: Function) -> str:
        """What it can be short of, as shim/calls/rescue.h names it; kNothing: it is not retried."""
        for effect, treatment, reason in self.groups[function.name]:
            if effect == AGAIN and treatment == "retried":
                return effects.NEEDS[reason.partition(":")[0]]
        return "kNothing"

    def is_plain(self, function: Function) -> bool:
        """Is it interposed for nothing else than to be retried, or watched?"""
        treatments = {treatment for _, treatment, _ in self.groups[function.name]}
        return (self.is_interposed(function) and self.kind(function) is None and
                treatments.intersection(INTERPOSED) <= {*PLAIN})

    def is_watched(self, name: str) -> bool:
        """For nothing else than to be watched?"""
        treatments = {treatment for _, treatment, _ in self.groups.get(name, ())}
        return treatments.intersection(INTERPOSED) == {"watched"}

    def interposed(self) -> dict:
        """Those that are defined by hand: lists of functions by what they do first."""
        return self.other(lambda function: not self.is_plain(function))

    def plain(self) -> dict:
        """The same of those that are only retried, or watched."""
        return self.other(self.is_plain)

    def other(self, wanted) -> dict:
        """Those that are interposed and no submissions."""
        result = {}
        for name in self.order:
            for function in self.named[name]:
                if (self.is_interposed(function) and self.kind(function) is None and
                        wanted(function)):
                    result.setdefault(self.groups[name][0][0], []).append(function)
        return result

    def submissions(self) -> dict:
        """For each kind, its functions."""
        result = {kind: [] for kind in effects.KINDS}
        for name in self.order:
            for function in self.named[name]:
                if self.kind(function) is not None:
                    result[self.kind(function)].append(function)
        return result

    def questions(self) -> list:
        """What cuGetProcAddress takes: (name, version, per_thread, function), sorted."""
        rows = [(function.name, function.version, bool(function.per_thread), function)
                for function in self.functions.values()]
        rows += [(name, version, False, self.functions[symbol])
                 for name, version, symbol in OTHER_NAMES]
        return sorted(rows, key=lambda row: row[:3])


def stream_of(function: Function) -> str:
    """The C++ expression for the stream that the function submits to."""
    meaning = "PerThread" if function.per_thread else "Explicit"
    if function.name in STREAMS:
        return STREAMS[function.name].format(meaning)
    streams = [name for kind, name in function.parameters if kind == "CUstream"]
    if len(streams) > 1 or (not streams and re.search("CUstream", str(function.parameters))):
        raise SystemExit(f"{function.symbol}: which stream it submits to is to be said in STREAMS")
    return f"cmp::{meaning}({streams[0] if streams else 'nullptr'})"


def spelled(function: Function, kind: str) -> str:
    """A parameter's type as all supported headers know it."""
    stars = kind.count("*")
    constant = "const " if kind.startswith("const ") else ""
    name = kind.replace("const ", "").rstrip("*").strip()
    if stars:
        return constant + (name if name in POINTERS else "void") + "*" * stars
    if name not in BY_VALUE:
        raise SystemExit(f"{function.symbol}: {kind} is passed by value; say in BY_VALUE how it is "
                         "spelled for headers that lack it")
    return constant + BY_VALUE[name]
