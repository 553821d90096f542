"""Other preloads beside ours, before and after it: wrappers of dlsym and malloc, allocators."""

import shutil
import unittest
from ctypes.util import find_library

from preload import BUILD, PRELOAD, PROGRAMS, SANITIZE, SIM, TestCase, main, run


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
        """Its lookups do not reach us. What comes by symbol does, but its submissions are not seen,
        so nothing is served; the rest is not reached at all."""
        order = [PROGRAMS / "dlsym_version.so", PRELOAD]
        for program, args in (*self.PROGRAMS, ("work", [2, 300, 1])):
            with self.subTest(program=program):
                by_symbol = program not in ("plain_static", "driver_opened")
                if not by_symbol:
                    within = self.beside(order, program, args, served=0)
                    self.assertIs(within.stats["reached"], False)
                    continue
                without = run(program, args, preload=False)
                within = run(program, args, preload=order)
                self.assertEqual(without.results, within.results)
                self.assert_aside(within, "dlsym_version.so hides from libcmp_preload.so what ")

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
        names = ["getpid", "malloc", "cudaMallocManaged", "dlopen"]
        chain = PROGRAMS / "dlsym_chain.so"
        alone = run("lookups", names, preload=[chain])
        self.assertEqual(alone.notes["dlsym"], "12")
        for order in ([PRELOAD, chain], [chain, PRELOAD]):
            with self.subTest(order=order):
                self.assertEqual(run("lookups", names, preload=order).notes["dlsym"], "12")


class Limiter(Neighbours):
    """Device memory in portions, as containers share a GPU: the quota holds, whoever stands first."""

    QUOTA = {"LIMITER_QUOTA": str(256 << 20)}
    REFUSED = "8 blocks of 32768 KiB, then 2"
    PROGRAMS = (("quota", []), ("quota", ["driver"]), ("quota_static", []))

    def limited(self, order, program, args):
        limiter = order[0] if order[0] != PRELOAD else order[1]
        without = run(program, args, preload=[limiter], env=self.QUOTA)
        within = run(program, args, preload=order, env=self.QUOTA)
        self.assertEqual(without.results, within.results, repr(within))
        self.assertIn("at most 256 MiB", within.notes["limiter"])
        return within

    def test_after_ours(self):
        """The real calls are the limiter's: what the pool keeps counts, and makes room."""
        for name in ("limiter", "limiter_by_symbol"):
            for program, args in self.PROGRAMS:
                with self.subTest(name=name, program=program, args=args):
                    limiter = PROGRAMS / f"{name}.so"
                    if (name, args) == ("limiter", ["driver"]):
                        continue  # linked to the driver: nobody would limit it without the pool
                    within = self.limited([PRELOAD, limiter], program, args)
                    self.assertIn(self.REFUSED, within.results)
                    self.assertEqual(within.err, "")
                    self.assert_served(within, 0)
                    self.assertGreater(within.totals["refills"], 0)

    def test_before_ours(self):
        """It hides the driver from the shim, which then serves nobody, or is not reached at all."""
        for name, program, args, reached in (
            ("limiter", "quota", [], True),
            ("limiter", "quota_static", [], False),
            ("limiter_by_symbol", "quota", [], True),
            ("limiter_by_symbol", "quota", ["driver"], False),
            ("limiter_by_symbol", "quota_static", [], False),
        ):
            with self.subTest(name=name, program=program, args=args):
                within = self.limited([PROGRAMS / f"{name}.so", PRELOAD], program, args)
                self.assertIn(self.REFUSED, within.results)
                if reached:
                    self.assert_aside(within, f"{name}.so hides from libcmp_preload.so what ")
                else:
                    self.assertIs(within.stats["reached"], False)
                    self.assertEqual(within.err, "")


class Others(Neighbours):
    def test_hidden_lookups(self):
        """Memory comes by symbol, but lookups do not reach us: launches could go past."""
        self.beside([PRELOAD], "driver_memory", served=0)
        for name in ("dlsym_version", "checkpointer", "limiter"):
            with self.subTest(name=name):
                without = run("driver_memory", preload=[PROGRAMS / f"{name}.so"])
                within = run("driver_memory", preload=[PROGRAMS / f"{name}.so", PRELOAD])
                self.assertIn("hazards 0, misuse 0", without.results)
                self.assertEqual(without.results, within.results)
                self.assert_aside(within, f"{name}.so hides from libcmp_preload.so what programs")

    def test_wrappers_of_the_driver(self):
        """By symbol, behind ours: its real functions may be ours again, or not there at all."""
        for way in ("next", "handle", "lookup"):
            wrapper = PROGRAMS / f"driver_wrapper_{way}.so"
            for program, args in (
                ("plain", [100]),
                ("plain_static", [100]),
                ("driver_linked", []),
                ("driver_memory", []),
                ("work", [2, 300, 1]),
            ):
                for order in ([PRELOAD, wrapper], [wrapper, PRELOAD]):
                    with self.subTest(way=way, program=program, order=order):
                        self.beside(order, program, args, served=0)

    def test_wrapper_of_cuda_malloc(self):
        """Whoever takes cudaMalloc behind ours would not see what the pool hands out again, and may
        have its own mind about the memory (torch_memory_saver). It may take as much of the runtime
        as it likes, and the program's first call may be cudaMalloc or another one."""
        for name in ("wrapper", "wrapper_of_launches", "wrapper_of_all"):
            wrapper = PROGRAMS / f"{name}.so"
            for program, args in (("plain", [100]), ("work", [2, 300, 1])):
                without = run(program, args, preload=[wrapper])
                with self.subTest(name=name, program=program, order="before"):
                    within = run(program, args, preload=[wrapper, PRELOAD])
                    self.assertEqual(without.results, within.results)
                    self.assertEqual(within.err, "")
                    self.assert_served(within, 40)
                with self.subTest(name=name, program=program, order="after"):
                    within = run(program, args, preload=[PRELOAD, wrapper])
                    self.assertEqual(without.results, within.results)
                    self.assert_aside(within, f"{name}.so wraps cudaMalloc behind libcmp_preload.so")
                    line = "# wrapped"
                    seen = [
                        [l for l in r.out.splitlines() if l.startswith(line)]
                        for r in (without, within)
                    ]
                    self.assertEqual(*seen)  # it sees every call

    def test_wrapper_before_two_runtimes(self):
        """Of several runtimes a caller's own is meant. One that wraps cudaMalloc has that itself."""
        other = BUILD / "sim-other" / "libcudart.so.12"
        for name in ("wrapper", "wrapper_of_launches", "wrapper_of_all", "checkpointer"):
            for program, args in (("plain", [100]), ("work", [2, 300, 1])):
                with self.subTest(name=name, program=program):
                    wrapper = PROGRAMS / f"{name}.so"
                    without = run(program, args, preload=[wrapper, other])
                    within = run(program, args, preload=[wrapper, PRELOAD, other])
                    self.assertEqual(without.results, within.results)
                    if name == "checkpointer":
                        self.assert_aside(within, "checkpointer.so hides from libcmp_preload.so")
                    else:
                        self.assert_served(within, 40)

    def test_checkpointer(self):
        """One that puts itself first, and answers all lookups with the driver's own functions."""
        checkpointer = PROGRAMS / "checkpointer.so"
        for order, reason in (
            ([checkpointer, PRELOAD], "checkpointer.so hides from libcmp_preload.so what "),
            ([PRELOAD, checkpointer], "checkpointer.so wraps cudaMalloc behind"),
        ):
            for program, args in (("plain", [100]), ("work", [2, 300, 1])):
                with self.subTest(order=order, program=program):
                    without = run(program, args, preload=[checkpointer])
                    within = run(program, args, preload=order)
                    self.assertEqual(without.results, within.results)
                    self.assertEqual(without.notes["checkpointer"], within.notes["checkpointer"])
                    self.assert_aside(within, reason)

    def test_memory_hook(self):
        """One that patches the driver's cuMemFree in place is called by every free, or by every
        real one."""
        hook = PROGRAMS / "memory_hook.so"
        if not hook.exists():
            self.skipTest("the hook knows x86-64 alone")
        for order in ([hook, PRELOAD], [PRELOAD, hook]):
            for program, args in (("quota", ["driver"]), ("quota", []), ("plain_static", [100])):
                with self.subTest(order=order, program=program, args=args):
                    without = run(program, args, preload=[hook])
                    within = run(program, args, preload=order)
                    self.assert_ok(within)
                    self.assertEqual(without.results, within.results)
                    self.assertEqual(within.err, "")
                    seen = int(within.notes["memory hook"])
                    self.assertGreaterEqual(seen, within.process["real_free_calls"] - 1)
                    self.assertGreater(int(without.notes["memory hook"]), 0)


@unittest.skipIf(SANITIZE, "sanitizers refuse RTLD_DEEPBIND")
class DeepLoads(Neighbours):
    """A library that came with RTLD_DEEPBIND launches past us: nothing is served from then on."""

    BLIND = PROGRAMS / "libblind_launches.so"
    HARMLESS = "libresolv.so.2"
    REASON = "libblind_launches.so came with RTLD_DEEPBIND, past libcmp_preload.so: "

    def test_steps_aside(self):
        for mode in ("wait", "auto", "order", "none"):
            for way, hits in (("deep", 0), ("thread", 0), ("late", 200), ("late-thread", 200)):
                with self.subTest(mode=mode, way=way):
                    without = run("blind", [way, self.BLIND], preload=False)
                    within = run("blind", [way, self.BLIND], env={"CMP_FREE_SYNC": mode})
                    self.assertEqual(without.results, within.results)
                    self.assertIn("hazards 0, misuse 0", within.results)
                    self.assert_aside(within, self.REASON, hits)

    def test_the_second_one(self):
        within = run("blind", ["second", self.HARMLESS, self.BLIND])
        self.assertIn("hazards 0, misuse 0", within.results)
        self.assert_aside(within, self.REASON)

    def test_at_the_address_of_another(self):
        copy = self.temporary_folder() / "copy.so"
        shutil.copy(self.BLIND, copy)
        within = run("blind", ["reuse", self.BLIND, copy, self.HARMLESS])
        self.assertIn("hazards 0, misuse 0", within.results)
        self.assert_aside(within, self.REASON)

    def test_others_are_served(self):
        for args in (["normal", self.BLIND], ["deep", self.HARMLESS], ["late-thread", self.HARMLESS],
                     ["deep", "libnowhere.so"], ["second", self.HARMLESS, "libnowhere.so"],
                     ["apart", self.HARMLESS, self.BLIND], ["apart", "libnowhere.so", self.BLIND]):
            with self.subTest(args=args):
                within = self.beside(True, "blind", args, served=150)
                self.assertGreater(within.totals["thread_cache_hits"], 150)


class ThinLoader(Neighbours):
    """A libcuda.so.1 whose cuGetProcAddress gives other pointers than its symbols (WSL 2)."""

    def test_served(self):
        folder = BUILD / "sim-loader"
        if not (folder / "libcuda.so.1").exists():
            self.skipTest("the loader knows x86-64 alone")
        env = {"LD_LIBRARY_PATH": f"{folder}:{SIM}"}
        for program, args in (
            ("plain", [100]),
            ("plain_static", [100]),
            ("work", [2, 300, 1]),
            ("driver_opened", ["v2"]),
            ("driver_opened", ["v1"]),
            ("driver_opened", ["symbols"]),
        ):
            with self.subTest(program=program, args=args):
                self.beside([PRELOAD], program, args, env=env, served=40)


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
