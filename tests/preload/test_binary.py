"""What is built to be delivered: what it needs, exports, and does when it is loaded."""

import platform
import re
import subprocess
import sys
import unittest

from preload import LIBRARY, PRELOAD, SANITIZE, TestCase, interposed, main

LIBC = {
    "libc.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}
REPLAY = PRELOAD.parent / "cmp-replay"
DELIVERED = (PRELOAD, LIBRARY, REPLAY)
OWN_EXPORTS = {
    "cmp_preload_version",
    "cmp_preload_pool",
    "cmp_preload_options",
    "cmp_preload_is_right",
    "cmp_preload_misspelled",
    "cmp_preload_counters",
}


def tool(*command):
    return subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def exports(library):
    """Names of defined dynamic symbols; versions are not allowed and stay visible."""
    lines = tool("nm", "-D", "--defined-only", library).splitlines()
    return {line.split()[-1] for line in lines}


@unittest.skipIf(SANITIZE, "a sanitizer brings its own needs and symbols")
class Files(TestCase):
    def test_needed(self):
        for library in DELIVERED:
            with self.subTest(library=library.name):
                needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", tool("readelf", "-dW", library)))
                self.assertIn("libc.so.6", needed)
                self.assertLessEqual(needed, LIBC)

    def test_symbol_versions(self):
        """Starts on every C library since 2.17."""
        if platform.machine() not in ("x86_64", "aarch64"):
            self.skipTest("no rule for this machine")
        for library in DELIVERED:
            with self.subTest(library=library.name):
                symbols = tool("nm", "-D", "--undefined-only", library)
                found = re.findall(r"(\w+)@(\w+?)_([\d.]+)", symbols)
                self.assertTrue(found)
                for name, node, version in found:
                    self.assertEqual(node, "GLIBC", f"{name} of {node}")
                    self.assertLessEqual(
                        tuple(map(int, version.split("."))), (2, 17), f"{name}@{node}_{version}"
                    )

    def test_undefined_symbols(self):
        """Nothing of CUDA or C++, and no thread-local storage that is looked up by a call."""
        for library in (PRELOAD, LIBRARY):
            with self.subTest(library=library.name):
                for line in tool("nm", "-D", "--undefined-only", library).splitlines():
                    name = line.split()[-1]
                    self.assertNotRegex(name, r"^(cu[A-Z]|cuda[A-Z]|_Z|__cxa_(?!finalize|atexit)|__gxx)")
                    self.assertNotIn("__tls_get_addr", name)
                    # Which newer headers bind to symbols that older C libraries lack.
                    self.assertNotRegex(name, r"^(__isoc\d+_)?(strto[a-z]+|ato[filq]+|[a-z]*scanf)@")
                relocations = tool("readelf", "-rW", library)
                self.assertNotRegex(relocations, r"DTPMOD|DTPOFF|TLSDESC")
                self.assertRegex(relocations, r"TPOFF|TPREL")

    def test_thread_local_storage(self):
        """Static, so a process that loads the library late (cmp-preload does) has 1,664 bytes at
        most for this and all other such libraries (glibc 2.33 and later)."""
        for library in (PRELOAD, LIBRARY):
            with self.subTest(library=library.name):
                [segment] = re.findall(r"^ +TLS +(.*)", tool("readelf", "-lW", library), re.M)
                self.assertLessEqual(int(segment.split()[4], 16), 1024)
                tool("env", "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=0", sys.executable, "-c",
                     f"import ctypes; ctypes.CDLL({str(library)!r})")

    def test_exports(self):
        names = {"dlsym", "dlopen", *interposed()}  # dlsym_tail.S, dlopen_tail.S
        self.assertIn("cudaMalloc", names)
        self.assertGreater(len(names), 10)
        self.assertEqual(exports(PRELOAD), names | OWN_EXPORTS)

    def test_exports_of_the_library(self):
        for name in exports(LIBRARY):
            self.assertRegex(name, r"CudaMemoryPool|^cmp_")

    def test_no_static_constructors(self):
        for library in DELIVERED:
            with self.subTest(library=library.name):
                self.assertEqual(self.initialisers(library), {"frame_dummy"})

    def initialisers(self, library):
        """Names of the functions in .init_array."""
        sections = tool("readelf", "-SW", library)
        match = re.search(r"\.init_array\s+INIT_ARRAY\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", sections)
        if match is None:
            return {"frame_dummy"}
        start, size = (int(group, 16) for group in match.groups())
        functions = {}
        for line in tool("readelf", "-sW", library).splitlines():
            parts = line.split()
            if len(parts) >= 8 and parts[3] == "FUNC":
                functions.setdefault(int(parts[1], 16), parts[7])
        found = set()
        for line in tool("readelf", "-rW", library).splitlines():
            parts = line.split()
            if len(parts) >= 4 and re.fullmatch(r"[0-9a-f]{8,16}", parts[0]):
                if start <= int(parts[0], 16) < start + size:
                    address = int(parts[3], 16)
                    found.add(functions.get(address, hex(address)))
        self.assertEqual(len(found), size // 8)
        return found

    def test_hardened(self):
        for library in (PRELOAD, LIBRARY):
            with self.subTest(library=library.name):
                self.assertRegex(tool("readelf", "-dW", library), r"BIND_NOW|FLAGS.*NOW")
                self.assertNotIn("TEXTREL", tool("readelf", "-dW", library))
                stack = [l for l in tool("readelf", "-lW", library).splitlines() if "GNU_STACK" in l]
                self.assertNotIn("RWE", stack[0])


if __name__ == "__main__":
    main()
