"""Runs cmp-preload on the simulated CUDA, for the tests of this folder.

ctest -R scripts --output-on-failure
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ["CMP_TEST_BUILD"])
SOURCE = pathlib.Path(os.environ["CMP_TEST_SOURCE"])
sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload.measuring.measurer import Run
from cmp_preload.pool.library import Library

LIBRARY = Library(str(BUILD / "libcmp_preload.so"))
COMMAND = BUILD / "cmp-preload"
PROGRAMS = BUILD / "programs"
PLAIN = str(PROGRAMS / "plain")  # PAIRS of cudaMalloc and cudaFree; says "failed 0, last error 0"
PLAIN_SAYS = "failed 0, last error 0\n"
WITH_SBIN = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"}
ROOT = os.geteuid() == 0


def environment(env=None):
    result = {
        name: value for name, value in os.environ.items() if not name.startswith(("CMP", "LD_"))
    }
    result["LD_LIBRARY_PATH"] = str(BUILD / "sim")
    for name, value in (env or {}).items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = str(value)
    return result


def called(arguments, env):
    """How cmp-preload is started, as subprocess takes it."""
    return {
        "args": [sys.executable, "-IS", str(COMMAND), *map(str, arguments)],
        "env": environment(env),
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


def start(*arguments, env=None, **more):
    return subprocess.Popen(**called(arguments, env), **more)


def run(*arguments, env=None, **more):
    """Runs cmp-preload to its end; code, stdout and stderr."""
    return subprocess.run(**called(arguments, env), timeout=120, check=False, **more)


class TestCase(unittest.TestCase):
    maxDiff = None

    def run(self, result=None):
        """A hang is a failure, not a stuck machine; of one test, however many others there are."""
        signal.alarm(280)
        return super().run(result)

    def folder(self):
        folder = tempfile.TemporaryDirectory(prefix="cmp-test-")
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)

    def script(self, text, name="app"):
        """An executable script for sh."""
        path = self.folder() / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    def without_driver(self):
        """The environment of a machine that has CUDA's runtime alone."""
        if "libcuda.so.1" in subprocess.run(["ldconfig", "-p"], stdout=subprocess.PIPE, text=True,
                                            env=WITH_SBIN, check=True).stdout:
            self.skipTest("this machine has a driver")
        folder = self.folder()
        (folder / "libcudart.so.13").symlink_to(BUILD / "sim" / "libcudart.so.13")
        return {"LD_LIBRARY_PATH": folder}

    def assert_ok(self, result, code=0):
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)

    def assert_refused(self, result, *words, code=2):
        """One line on stderr with these words, nothing on stdout."""
        self.assert_ok(result, code)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("cmp-preload: "), result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)


def measured(seconds, allocation_s, **process):
    """A run as a trial measures one: it took so long, and so long in real calls."""
    result = Run()
    result.seconds = seconds
    counters = {name: 0 for name in LIBRARY.counters("process")}
    counters |= {"real_malloc_ns": allocation_s * 1e9, "allocating_ns": allocation_s * 1e9, **process}
    totals = {"requests": 100, "thread_cache_hits": 90, "hit_rate": 0.9, "real": 0}
    totals |= {"global_pool_hits": 0}
    result.statistics = [{"reached": True, "totals": totals, "process": counters, "tiers": []}]
    return result


def main():
    unittest.main(verbosity=2)
