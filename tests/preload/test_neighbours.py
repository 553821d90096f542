"""Other preloads beside ours, before and after it: wrappers of dlsym and malloc, allocators."""

import shutil
import unittest
from ctypes.util import find_library

from preload import PRELOAD, PROGRAMS, SANITIZE, TestCase, main, run


class Neighbours(TestCase):
    def beside(self, order, program, args=(), env=None, served=1):
        """Runs without any preload and with those of `order`: the same results."""
        without = run(program, args, preload=False, env=env)
        within = run(program, args, preload=order, env=env)
        self.assertEqual(without.code, 0)
        self.assert_ok(within)
        self.assertEqual(without.results, within.results, within.err)
        self.assertEqual(within.err, "")
        if served:
            self.assert_served(within, served)
        return within


class Dlsym(Neighbours):
    """Ours takes its lookups and passes the others on; who stands first decides what it sees."""

    PROGRAMS = (
        ("plain", [100]),
        ("plain_static", [100]),
        ("driver_opened", ["v2"]),
        ("driver_opened", ["symbols"]),
        ("plugin_host", [PROGRAMS / "plugin.so", PROGRAMS / "plugin_static.so"]),
        ("lookups", ["getpid", "global", "libcudart.so.13", "cudaMalloc"]),
    )

    def test_after_ours(self):
        for way in ("version", "chain", "next"):
            for program, args in self.PROGRAMS:
                with self.subTest(way=way, program=program):
                    wrapper = PROGRAMS / f"dlsym_{way}.so"
                    self.beside([PRELOAD, wrapper], program, args, served=40)

    def test_before_ours(self):
        for program, args in self.PROGRAMS:
            with self.subTest(program=program):
                self.beside([PROGRAMS / "dlsym_chain.so", PRELOAD], program, args, served=40)

    def test_before_ours_and_past_it(self):
        """Its lookups do not reach us: what comes by symbol is served, the rest runs unserved."""
        order = [PROGRAMS / "dlsym_version.so", PRELOAD]
        for program, args in self.PROGRAMS:
            with self.subTest(program=program):
                by_symbol = program not in ("plain_static", "driver_opened")
                within = self.beside(order, program, args, served=40 if by_symbol else 0)
                if not by_symbol:
                    self.assertIs(within.stats["reached"], False)

    def test_on_both_sides(self):
        before = PROGRAMS / "dlsym_chain.so"
        for way in ("version", "chain"):  # "next" would be sent in circles by the first, always
            for program, args in self.PROGRAMS:
                with self.subTest(way=way, program=program):
                    # A copy: the same file is not loaded twice.
                    after = self.temporary_folder() / "after.so"
                    shutil.copy(PROGRAMS / f"dlsym_{way}.so", after)
                    self.beside([before, PRELOAD, after], program, args, served=40)

    @unittest.skipIf(SANITIZE, "a sanitizer's runtime looks names up too")
    def test_sees_what_is_passed_on(self):
        names = ["getpid", "malloc", "cudaMallocHost", "dlopen"]
        chain = PROGRAMS / "dlsym_chain.so"
        alone = run("lookups", names, preload=[chain])
        self.assertEqual(alone.notes["dlsym"], "12")
        for order in ([PRELOAD, chain], [chain, PRELOAD]):
            with self.subTest(order=order):
                self.assertEqual(run("lookups", names, preload=order).notes["dlsym"], "12")


@unittest.skipIf(SANITIZE, "a sanitizer has malloc to itself")
class Malloc(Neighbours):
    PROGRAMS = (
        ("plain", [100]),
        ("plain_static", [100]),
        ("work", [4, 300, 1]),
        ("forks", ["after"]),
        ("endings", ["late-malloc"]),
    )

    def beside_both_ways(self, library, env=None):
        results = []
        for order in ([library, PRELOAD], [PRELOAD, library]):
            for program, args in self.PROGRAMS:
                with self.subTest(order=order, program=program):
                    results.append(self.beside(order, program, args, env=env, served=10))
        return results

    def test_wrapper(self):
        for within in self.beside_both_ways(PROGRAMS / "malloc_wrapper.so"):
            self.assertEqual(within.notes["allocated during lookups"], "0")
            self.assertGreater(int(within.notes["mallocs"]), 0)

    def allocator(self, name):
        library = find_library(name)
        if library is None:
            self.skipTest(f"lib{name} is not installed")
        env = {"ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0"}
        self.beside_both_ways(library, env)

    def test_jemalloc(self):
        self.allocator("jemalloc")

    def test_mimalloc(self):
        self.allocator("mimalloc")

    def test_asan(self):
        self.allocator("asan")


if __name__ == "__main__":
    main()
