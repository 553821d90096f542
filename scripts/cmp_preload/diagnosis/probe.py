"""Asks the driver about itself, in a process of its own that doctor starts: a driver that hangs or
crashes must not take doctor along. With the pool preloaded it also allocates. Prints JSON. With the
argument "kind" it makes no call of the driver's."""

import ctypes
import json
import os
import sys


def main() -> None:
    found: dict = {}
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        print(json.dumps({"missing": str(error)}))
        return
    found["simulated"] = hasattr(driver, "simLaunch")
    if sys.argv[1:] == ["kind"]:
        print(json.dumps(found))
        return
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    found["version"] = version.value
    # The name is asked for as the pool does.
    found["context_events"] = hasattr(driver, "cuCtxRecordEvent") and version.value >= 12050
    error = driver.cuInit(0)
    if error == 0:
        error = driver.cuDeviceGetCount(ctypes.byref(count))
    found["error"] = error
    found["devices"] = []
    for device in range(count.value):
        name = ctypes.create_string_buffer(100)
        driver.cuDeviceGetName(name, len(name), device)
        found["devices"].append(name.value.decode(errors="replace"))
    if found["devices"]:
        found["allocated"] = _allocate(driver)
        found["in_order"] = found["allocated"] == 0 and _allocate_in_order(driver)
        if found["allocated"] == 0 and os.environ.get("CMP_HOST"):
            _allocate_page_locked(driver)
    print(json.dumps(found))


def _allocate(driver) -> int:
    """The error of the first call that fails; 0: all went well."""
    context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    error = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    if error == 0:
        error = driver.cuCtxSetCurrent(context)
    for _ in range(100):
        if error == 0:
            error = driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(4096))
        if error == 0:
            error = driver.cuMemFree_v2(pointer)
    return error


def _allocate_in_order(driver) -> bool:
    """In the order of a stream. Not every device can."""
    pointer = ctypes.c_uint64()
    return (
        hasattr(driver, "cuMemAllocAsync")
        and driver.cuMemAllocAsync(ctypes.byref(pointer), ctypes.c_size_t(4096), None) == 0
        and driver.cuMemFreeAsync(pointer, None) == 0
    )


def _allocate_page_locked(driver) -> None:
    """Twice, for who looks at what the pool counts."""
    pointer = ctypes.c_void_p()
    for _ in range(2):
        if driver.cuMemHostAlloc(ctypes.byref(pointer), ctypes.c_size_t(4096), 0) == 0:
            driver.cuMemFreeHost(pointer)


if __name__ == "__main__":
    main()
