"""Page-locked memory of the host (CMP_HOST): kept, and the program cannot tell."""

import re
import sys
from collections import Counter

from preload import OLD_DRIVER, SANITIZE, SOURCE, TestCase, main, run

sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload.records import traces  # noqa: E402

ON = {"CMP_HOST": "on", "CMP_FREE_SYNC": "auto"}
# Which calls allocate and free: of the runtime, with and without flags, and of the driver.
WAYS = ("runtime", "flags", "driver", "allochost")
MODES = ("wait", "auto", "order", "none")
MiB = 1 << 20


def served(result):
    """The requests that made no real allocation."""
    return result.process["host_thread_cache_hits"] + result.process["host_global_pool_hits"]


class PageLocked(TestCase):
    def assert_adds_up(self, result):
        process = result.process
        self.assertEqual(process["host_requests"], served(result) + process["host_refills"])
        self.assertGreaterEqual(process["host_reserved_peak_bytes"], process["host_reserved_bytes"])
        # Whoever makes them.
        self.assertGreaterEqual(process["host_real_malloc_calls"], process["host_refills"])

    def both(self, part, way="runtime", program="page_locked", env=None):
        _, within = self.run_both(program, [part, way], {**ON, **(env or {})})
        self.assertIn("hazards 0, misuse 0", within.results)
        self.assert_adds_up(within)
        return within

    def test_pairs(self):
        """Every route and size: the second of two is recycled, whatever was freed before."""
        for program in ("page_locked", "page_locked_static"):
            for way in WAYS:
                with self.subTest(program=program, way=way):
                    within = self.both("pairs", way, program)
                    real = [int(n) for name, n in within.notes.items() if name.startswith("real")]
                    self.assertEqual(real, [2] * 7)
                    self.assertEqual(within.process["host_refills"], 14)
                    self.assertEqual(served(within), 7 * 38)
                    # What it held is given back, but for what is idle.
                    self.assertEqual(within.process["host_frees"], 7 * 40)

    def test_off(self):
        """By default nothing is kept; real calls are counted where the pool was started."""
        for env in ({}, {"CMP_HOST": "off"}, {"CMP_HOST": "0"}, {"CMP_HOST": "on", "CMP_MODE": "off"},
                    {"CMP_HOST": "on", "CMP_MODE": "observe"}):
            with self.subTest(env=env):
                without, within = self.run_both("page_locked", ["pairs"], env)
                self.assertEqual(without.notes, within.notes)
                if within.stats is not None and within.stats.get("process"):
                    self.assertEqual(within.process["host_requests"], 0)
        _, within = self.run_both("page_locked", ["copies"])
        self.assertEqual(within.process["host_requests"], 0)
        self.assertGreater(within.process["host_real_malloc_calls"], 80)
        self.assertGreater(within.process["host_real_malloc_ns"], 0)
        self.assertEqual(
            within.process["host_real_free_calls"], within.process["host_real_malloc_calls"]
        )

    def test_pending_copies(self):
        """A buffer is handed out again only when no copy can touch it: in every mode, on devices
        that are on time, early, late and lazy."""
        for mode in MODES:
            for seed in range(4):
                with self.subTest(mode=mode, seed=seed):
                    env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed}
                    within = self.both("copies", env=env)
                    self.assertIn("wrong 0\n", within.results)
                    if mode in ("wait", "auto"):
                        self.assertGreater(served(within), 60)

    def test_old_driver(self):
        """Without context events a free waits."""
        within = self.both("copies", env=OLD_DRIVER)
        self.assertGreater(served(within), 60)

    def test_threads(self):
        for mode in MODES:
            for seed in range(4):
                with self.subTest(mode=mode, seed=seed):
                    env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed, "CMP_HOST": "2M"}
                    within = run("page_locked", ["threads", "runtime", seed], env={**ON, **env})
                    self.assert_ok(within)
                    self.assertIn("wrong 0\nhazards 0, misuse 0", within.results)
                    self.assert_adds_up(within)

    def test_other_contexts(self):
        """Work of another context, or device, that uses a buffer delays its reuse."""
        for part, env in (("second_context", {}), ("second_device", {"CMPSIM_DEVICES": 2})):
            for seed in range(4):
                with self.subTest(part=part, seed=seed):
                    within = run("page_locked", [part], env={**ON, **env, "CMPSIM_SEED": seed})
                    self.assert_ok(within)
                    self.assertIn("wrong 0\nhazards 0, misuse 0", within.results)
                    self.assertGreater(served(within), 5 if seed == 0 else 0)

    def test_visible(self):
        """cudaFreeHost keeps order, and shows what the host could see, as the real one does."""
        for mode in ("wait", "auto"):
            for seed in range(4):
                with self.subTest(mode=mode, seed=seed):
                    env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed}
                    within = self.both("visible", env=env)
                    self.assertNotIn("wrong 1", within.results)

    def test_questions(self):
        for program in ("page_locked", "page_locked_static"):
            for way in WAYS:
                with self.subTest(program=program, way=way):
                    within = self.both("questions", way, program)
                    self.assertGreater(served(within), 4)
                    self.assertEqual(within.notes["really freed"], "1")  # of one with an attribute

    def test_new_ranges(self):
        """Only while the program has memory that kernels use does every free wait."""
        within = run("page_locked", ["mapped"], env=ON)
        self.assert_ok(within)
        waits = {name for name, what in within.notes.items() if what == "waits"}
        self.assertEqual(waits, {"mapped", "mapped again", "asked for", "asked for again"})
        self.assertEqual(len(within.notes), 10)
        self.assertGreaterEqual(served(within), 2)

    def test_nvidias_libraries(self):
        within = run("page_locked", ["library"], env=ON)
        self.assert_ok(within)
        self.assertEqual(within.notes, {"real of the library's": "2",
                                        "beside the library's": "does not wait"})

    def test_flags(self):
        within = self.both("flags")
        self.assertEqual(within.notes["foreign"], "0")
        self.assertEqual(within.notes["real"], "0")

    def test_bound(self):
        """What is idle stays under the bound, whatever caches hold."""
        for value, most in (("on", 256 * MiB), ("64M", 64 * MiB), ("8M", 8 * MiB), ("1M", MiB),
                            ("4096", 4096)):
            with self.subTest(value=value):
                within = self.both("bound", env={"CMP_HOST": value})
                self.assertLessEqual(int(within.notes["idle at most"]), most)
                if MiB < most <= 64 * MiB:  # what there is to keep is more
                    self.assertGreater(int(within.notes["idle at most"]), most // 4)
                    self.assertGreater(served(within), 100)

    def test_room(self):
        """Under the bound, for what the program uses now."""
        within = self.both("room", env={"CMP_HOST": "8M"})
        self.assertLessEqual(int(within.notes["real of 20"]), 2)
        self.both("room_elsewhere", env={"CMP_HOST": "8M", "CMPSIM_DEVICES": 2})

    def test_ageing(self):
        within = self.both("ageing")
        self.assertEqual(within.notes, {"freed at once": "0", "freed later": "8"})
        self.assertEqual(within.process["host_blocks_released"], 8)
        self.assertEqual(within.process["host_reserved_bytes"], MiB)  # of a pair after that

    def test_ageing_waits_for_nothing(self):
        """No real free beside a kernel that waits for a later launch."""
        within = self.both("ageing_busy")
        self.assertEqual(within.notes["freed beside a kernel"], "0")
        self.assertNotEqual(within.notes["freed later"], "0")

    def test_ageing_of_streams(self):
        """The program waits for its streams alone; and nothing tells of their context."""
        self.both("ageing_streams")

    def test_ageing_beside_captures(self):
        within = self.both("ageing_capture")
        self.assertEqual(within.notes["freed beside a capture"], "0")
        self.assertNotEqual(within.notes["freed later"], "0")

    def test_contexts_and_processes(self):
        for part in ("reset", "contexts", "fork", "exit", "capture"):
            for way in ("runtime", "driver"):
                with self.subTest(part=part, way=way):
                    self.both(part, way)
        within = self.both("many_contexts", "driver")
        self.assertEqual(within.notes["real of 600"], "300")
        within = run("page_locked", ["contexts"], env=ON)
        self.assertEqual(within.notes["of another context"], "apart")

    def test_callback(self):
        """A host function may call nothing: the real answers."""
        without, within = self.run_both_callback()
        self.assertEqual(without, within)

    def run_both_callback(self):
        results = []
        for preload in (False, True):
            result = run("page_locked", ["callback"], preload=preload, env=ON)
            self.assert_ok(result)
            # Whose misuse it is counts what the pool asked there, too.
            results.append(re.search(r"in a callback: .*\n", result.results).group())
            self.assertIn("hazards 0", result.results)
        return results

    def test_failures(self):
        """The real error; and idle memory goes before a call fails."""
        for way in ("runtime", "driver"):
            with self.subTest(way=way):
                within = self.both("failures", way)
                self.assertEqual(within.notes, {"released": "6", "once": "0"})

    def test_failures_of_others(self):
        """What else lacks page-locked memory finds what is idle: as much as it needs, then all."""
        for way in ("runtime", "driver"):
            with self.subTest(way=way):
                within = self.both("failures_others", way, env={"CMP_HOST": "16M"})
                self.assertEqual(within.notes, {"registered": "0", "released for it": "3",
                                                "released in vain": "6", "large": "0"})
                self.assertEqual(within.process["out_of_memory_rescues"], 2)

    def test_failures_beside_a_release(self):
        """What another thread is freeing is awaited, and then the call tried again."""
        within = run("page_locked", ["failures_beside", "driver"], env=ON | {"CMP_HOST": "16M"})
        self.assert_ok(within)
        self.assertEqual(within.notes["beside a release"], "0, freed 6")

    def test_failures_wait_for_nothing_later(self):
        """A failure is one at last, where a kernel waits for what the program does next."""
        self.both("failures_busy")

    def test_stepping_aside(self):
        self.both("aside")

    def test_numa_policy(self):
        """A process with a thread that says where its memory lies gets the real calls."""
        for part in ("numa", "numa_known"):
            with self.subTest(part=part):
                within = self.both(part)
                if within.notes["policy"] != "0":
                    self.skipTest("this system lets nobody set a policy")
                self.assertEqual(within.notes["real of 20"], "20")
                self.assertEqual(within.process["host_bypassed"], 1)

    def test_traced(self):
        """Every call is in the trace, apart from those for device memory, and is told as counted."""
        path = self.temporary_folder() / "trace"
        within = self.both("copies", env={"CMP_TRACE": path})
        self.assertGreater(served(within), 60)
        process, found = within.process, traces.read(path)
        calls = list(found.page_locked)
        outcomes = Counter(call.outcome for call in calls)
        self.assertEqual(outcomes["thread_cache"], process["host_thread_cache_hits"])
        self.assertEqual(outcomes["global_pool"], process["host_global_pool_hits"])
        self.assertEqual(outcomes["refill"], process["host_refills"])
        self.assertEqual(outcomes["pooled"] + outcomes["waited"], process["host_frees"])
        given = sum(call.bytes for call in calls if call.allocates)
        self.assertEqual(given, process["host_requested_bytes"])
        self.assertEqual(given, sum(call.bytes for call in calls if not call.allocates))
        # Of the device's memory there is one block.
        self.assertEqual(Counter(call.allocates for call in found), {True: 1, False: 1})
        self.assertEqual(len(found), 2)
        # Where it is not kept: real calls.
        path = self.temporary_folder() / "trace"
        _, within = self.run_both("page_locked", ["loop", "runtime", "30"], {"CMP_TRACE": path})
        calls = list(traces.read(path).page_locked)
        self.assertEqual(Counter(call.outcome for call in calls), {"real": 30, "foreign_free": 30})
        self.assertEqual({call.bytes for call in calls}, {0, 4096})
        self.assertEqual(within.process["host_real_malloc_calls"], 30)


if __name__ == "__main__":
    main()
