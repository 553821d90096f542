"""The programs in Python of scripts/docs/examples, up to where a framework would use what they give it: a
stand-in of the framework takes their functions, and allocates with them on the simulated CUDA.

    test_examples.py PROJECT BUILD
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()

# What each framework does with them, as its documentation says.
TORCH = """
import ctypes
import types

class CUDAPluggableAllocator:
    def __init__(self, path_to_so_file, alloc_fn_name, free_fn_name):
        library = ctypes.CDLL(path_to_so_file)
        self.alloc, self.free = library[alloc_fn_name], library[free_fn_name]
        self.alloc.restype = ctypes.c_void_p

current = []
memory = types.SimpleNamespace(CUDAPluggableAllocator=CUDAPluggableAllocator,
                               change_current_allocator=current.append)
cuda = types.SimpleNamespace(memory=memory)
"""
CUPY = """
import types

class PythonFunctionAllocator:
    def __init__(self, malloc_func, free_func):
        self.malloc_func, self.free_func = malloc_func, free_func

    def malloc(self, size):
        return self.malloc_func(size, 0), self.free_func

current = []
cuda = types.SimpleNamespace(PythonFunctionAllocator=PythonFunctionAllocator,
                             set_allocator=current.append)
"""
USE_TORCH = """
import ctypes, torch, torch_pool
allocator = torch.current[0]
pointers = []
for _ in range(10):
    pointers.append(allocator.alloc(ctypes.c_ssize_t(100000), ctypes.c_int(0), None))
    allocator.free(ctypes.c_void_p(pointers[-1]), ctypes.c_ssize_t(100000), ctypes.c_int(0), None)
print(len(set(pointers)), pointers[0] is not None)
"""
USE_CUPY = """
import cupy, cupy_pool
pointers = []
for _ in range(10):
    pointer, free = cupy.current[0](100000)
    pointers.append(pointer)
    free(pointer, 0)
print(len(set(pointers)), pointers[0] is not None)
try:
    cupy.current[0](1 << 45)
except MemoryError as error:
    print(error)
"""


class Examples(unittest.TestCase):
    def run_with(self, module: str, stand_in: str, use: str) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            (place / f"{module}.py").write_text(stand_in)
            package = place / "cmp_preload"  # as in the wheel
            package.mkdir()
            (package / "__init__.py").symlink_to(ROOT / "scripts" / "cmp_preload" / "__init__.py")
            (package / "libcmp.so").symlink_to(BUILD / "libcmp.so")
            examples = ROOT / "scripts" / "docs" / "examples"
            env = {**os.environ, "PYTHONPATH": f"{place}:{examples}",
                   "PYTHONDONTWRITEBYTECODE": "1", "LD_LIBRARY_PATH": str(BUILD / "sim")}
            return subprocess.run([sys.executable, "-c", use], env=env, capture_output=True,
                                  text=True, timeout=60, check=False)

    def test_torch_pool(self):
        done = self.run_with("torch", TORCH, USE_TORCH)
        self.assertEqual((done.stdout, done.stderr), ("1 True\n", ""))

    def test_cupy_pool(self):
        done = self.run_with("cupy", CUPY, USE_CUPY)
        self.assertEqual(done.stdout, "1 True\nno device memory for 35184372088832 bytes\n",
                         done.stderr)
        self.assertIn("cmp: no memory for 35184372088832 bytes on device 0", done.stderr)


if __name__ == "__main__":
    unittest.main()
