"""Near full memory: what fits without the preload fits with it, and fails with the same error."""

import itertools
import re

from preload import ONE_THREAD, SANITIZE, TestCase, main, numbers, run

MIB = 1 << 20
SMALL = 8 << 10 if SANITIZE else 1 << 10  # many of them take a sanitizer long
# 700 KiB blocks and the like: sizes that a tier rounds up more than the driver does.
ODD_SIZES = [4097, 70000, 700 << 10, (1 << 20) - 512, 5000]


class Memory(TestCase):
    @ONE_THREAD
    def test_one_size_after_another(self):
        """Idle blocks of one size make way for the next."""
        sizes = [512 << 10, 4 * MIB, 2 * MIB, 64 << 10, 32 * MIB, SMALL, 62 * MIB, 256 << 10]
        without, within = self.run_both("memory", ["sizes", *sizes], {"CMPSIM_MEMORY": "64M"})
        self.assertIn("1 blocks of 65011712 bytes, then 2, last error 2, p NULL", without.results)
        self.assertIn("hazards 0", without.results)
        self.assertGreaterEqual(within.process["out_of_memory_rescues"], len(sizes) - 1)

    @ONE_THREAD
    def test_oversized_after_small(self):
        for sizes in ([512 << 10, 60 * MIB, 512 << 10], [SMALL, 60 * MIB]):
            with self.subTest(sizes=sizes):
                _, within = self.run_both(
                    "memory",
                    ["sizes", *sizes],
                    {"CMPSIM_MEMORY": "64M", "CMP_MAX_BLOCK": "32M"},
                )
                self.assertGreaterEqual(within.process["out_of_memory_rescues"], 1)

    @ONE_THREAD
    def test_sizes_between_tiers(self):
        """Tiers cost memory below 2 MiB: at most a fifth of a quarter of the device, and a 256th."""
        for size in ODD_SIZES[1:4] if SANITIZE else ODD_SIZES:
            for steps, part in ((4, 0.94), (16, 0.98)):
                with self.subTest(size=size, steps=steps):
                    env = {"CMPSIM_MEMORY": "64M"}
                    without = run("memory", ["sizes", size], preload=False, env=env)
                    within = run("memory", ["sizes", size],
                                 env=env | {"CMP_TIER_STEPS": str(steps)})
                    count, rest = without.results.split(" ", 1)
                    pooled_count, pooled_rest = within.results.split(" ", 1)
                    self.assertEqual(rest, pooled_rest)
                    self.assertGreaterEqual(int(pooled_count), part * int(count) - 1)

    @ONE_THREAD
    def test_random_program_within_capacity(self):
        for seed in (1, 2, 3):
            with self.subTest(seed=seed):
                without, within = self.run_both(
                    "memory", ["mixed", 256 * MIB, seed], {"CMPSIM_MEMORY": "256M"}
                )
                self.assertIn("failed: 0", without.results)
                self.assert_served(within, 50)

    @ONE_THREAD
    def test_random_program_without_slack(self):
        without, within = self.run_both(
            "memory", ["mixed", 256 * MIB, 1], {"CMPSIM_MEMORY": "256M", "CMP_SLACK": "0%"}
        )
        self.assertIn("failed: 0", without.results)
        self.assert_served(within, 50)

    @ONE_THREAD
    def test_random_program_with_small_blocks(self):
        """What fits without the pool fits with it, 15,000 allocations from each of three seeds.

        The last row does not always fit without the pool either: the driver's chunks have gaps.
        """
        rows = [(1024, 97, 50), (1024, 97, 80), (1024, 94, 95), (256, 94, 80), (256, 94, 99)]
        for memory, percent, small in rows[3:] if SANITIZE else rows:
            with self.subTest(memory=memory, percent=percent, small=small):
                env = {"CMPSIM_MEMORY": f"{memory}M"}
                args = ["small", memory * MIB // 100 * percent, small, 1]
                failed = []
                for preload in (False, True):
                    result = run("memory", args, preload=preload, env=env)
                    self.assert_ok(result)
                    self.assertIn("hazards 0, misuse 0", result.results)
                    counts = re.findall(r"^failed: (\d+)", result.results, re.MULTILINE)
                    failed.append(sum(map(int, counts)))
                without, within = failed
                self.assertEqual(without == 0, small < 99)
                self.assertLessEqual(within, without)
                # Near full, what is made ahead is mostly made in vain.
                self.assertLess(result.process["real_malloc_calls"], 1.5 * 45000)

    def test_slack_costs_no_allocation(self):
        without, _ = self.run_both("memory", ["slack"], {"CMPSIM_MEMORY": "64M"})
        self.assertIn("32 MiB more: 0", without.results)

    def test_blocks_of_other_threads_are_released(self):
        without, within = self.run_both(
            "memory", ["threads", 64 * MIB], {"CMPSIM_MEMORY": "64M"}
        )
        self.assertIn("everything: 0", without.results)
        self.assertGreaterEqual(within.process["out_of_memory_rescues"], 1)
        # All of them; how many is up to the threads: who is late uses what another one freed.
        self.assertGreaterEqual(int(within.notes["idle"].split()[0]), 16)
        self.assertEqual(within.notes["really freed"], within.notes["idle"])

    @ONE_THREAD
    def test_reserve(self):
        """The bound on what the pool holds, against the program's peak of 32 MiB.

        It holds after every free. Allocations wait for nothing, so they may cross it until the next
        free: by no more than what the program allocates meanwhile, here 32 MiB. Once there are 2 MiB
        besides for a moment: to pay for the first free that waits for nothing.
        """
        bounds = (
            ("1x", 32),
            ("2x+8M", 72),
            ("1x+0", 32),
            ("1.5x", 48),
            ("1x+16M", 48),
            ("40M", 72),
        )
        for reserve, bound in bounds[:2] if SANITIZE else bounds:
            with self.subTest(reserve=reserve):
                _, within = self.run_both("memory", ["waves"], {"CMP_RESERVE": reserve})
                self.assertEqual(within.process["live_peak_bytes"], 32 * MIB)
                peak = within.process["reserved_peak_bytes"]
                self.assertLessEqual(peak, (bound + 32 + 2) * MIB, f"{peak / MIB} MiB")
                self.assertLessEqual(within.process["reserved_bytes"], bound * MIB)
                # With no room beside the peak, each wave drives the one before it out.
                self.assert_served(within, 100 if bound > 32 else 0)

    @ONE_THREAD
    def test_reserve_is_used(self):
        """Without a tight bound the pool does hold more: the test above can fail."""
        _, within = self.run_both("memory", ["waves"], {"CMP_RESERVE": "1x+1G"})
        self.assertGreater(within.process["reserved_peak_bytes"], (72 + 32) * MIB)
        self.assertGreater(within.process["reserved_bytes"], 72 * MIB)

    @ONE_THREAD
    def test_reserve_peak_is_not_a_sum_over_devices_or_rounds(self):
        _, within = self.run_both("memory", ["waves"], {"CMP_RESERVE": "100x"})
        self.assertLessEqual(within.process["reserved_peak_bytes"], 100 * 32 * MIB)
        self.assertEqual(
            within.process["reserved_bytes"],
            within.totals["live_block_bytes"]
            + within.totals["ready_bytes"]
            + within.totals["retired_bytes"],
        )

    def test_reserve_grows_by_what_is_regretted(self):
        _, within = self.run_both("memory", ["rounds"])
        regretted = within.process["regretted_releases"]
        extra = within.process["reserve_extra_peak_bytes"]
        self.assertIn(regretted, range(1, 9))
        self.assertLessEqual(within.process["reserve_extra_bytes"], extra)
        self.assertGreaterEqual(extra, 256 * MIB)
        self.assertLessEqual(extra, 2 * 1024 * MIB)
        self.assert_served(within, 25)
        said = run("memory", ["rounds"], env={"CMP_STATS": "1"}).err
        self.assertIn(
            f"cmp:   blocks released for CMP_RESERVE and soon allocated again: {regretted}; it grew "
            f"by up to {extra / MIB:.1f} MiB\n",
            said,
        )
        # A fixed bound stays, and what does not happen has no line.
        within = run("memory", ["rounds"], env={"CMP_RESERVE": "1.15x+256M"})
        self.assertEqual(within.process["regretted_releases"], 0)
        self.assertEqual(within.process["reserve_extra_peak_bytes"], 0)
        env = {"CMP_RESERVE": "1.15x+256M", "CMP_STATS": "1"}
        self.assertNotIn("blocks released for", run("memory", ["rounds"], env=env).err)

    def test_releases_wait_for_nothing(self):
        """What is over the bound is released beside a kernel that stays until the next launch."""
        for mode in ("auto", "order", "none"):
            for seed in (1, 2):
                env = {"CMP_RESERVE": "1x", "CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed}
                with self.subTest(mode=mode, seed=seed):
                    within = run("memory", ["staying"], env=env)
                    self.assert_ok(within)
                    self.assertIn("hazards 0, misuse 0", within.results)
                    self.assertGreater(int(within.notes["real frees beside kernels"]), 40)

    @ONE_THREAD
    def test_managed_memory_finds_room(self):
        _, within = self.run_both("memory", ["managed"], {"CMPSIM_MEMORY": "1G"})
        for when in ("used of the device", "used at last"):
            self.assertLessEqual(int(within.notes[when]), 426 * MIB, when)
        self.assertEqual(within.notes["served afterwards"], "20 of 20")

    def test_room_for_other_calls(self):
        """768 MiB of 1 GiB are idle in the pool, and 512 MiB are asked for in another way."""
        for way in ("pitch", "3d", "async", "capture"):
            with self.subTest(way=way):
                without, within = self.run_both("memory", ["room", way], {"CMPSIM_MEMORY": "1G"})
                self.assertIn("p set\nits free: 0, last error 0\n", without.results)
                self.assertGreaterEqual(within.process["out_of_memory_rescues"], 1)

    @ONE_THREAD
    def test_room_for_every_call(self):
        """896 MiB of 1 GiB are idle in the pool, and a call of any kind needs 512 or more."""
        ways = run("out_of_memory", ["ways"], preload=False).out.splitlines()
        self.assertGreater(len(ways), 15)
        for way in ways:
            for env in ({}, {"CMPSIM_SEED": "2"}):
                with self.subTest(way=way, env=env):
                    without, within = self.run_both(
                        "out_of_memory", ["room", way], {"CMPSIM_MEMORY": "1G"} | env)
                    self.assertIn(f"{way}: 0, last error 0\n", without.results)
                    self.assertEqual(within.process["out_of_memory_rescues"], 1)

    def launches(self, error, memory):
        """What a launch that always fails made the driver do: (launches, frees, questions)."""
        without, within = self.run_both(
            "out_of_memory", ["refused", error], {"CMPSIM_MEMORY": memory})
        self.assertEqual(without.results.count(f": {error}, last error {error}\n"), 6)
        return {when: tuple(numbers(note)) for when, note in within.notes.items()}

    @ONE_THREAD
    def test_what_did_not_help_is_not_done_again(self):
        for error in (2, 701):
            with self.subTest(error=error):
                made = self.launches(error, "1G")
                self.assertEqual(made["nothing idle"], (1, 0, 0))
                self.assertEqual(made["much idle"][:2], (2, 28))
                self.assertEqual(made["once more"], (1, 0, 0))
                self.assertEqual(made["idle again"], (1, 0, 1))
                for when in ("less", "more"):
                    self.assertEqual(made[when][0], 2, made)
                    self.assertGreater(made[when][1], 0, made)

    @ONE_THREAD
    def test_what_did_not_help_may_help_another_size(self):
        """A program that looks for the largest size that fits."""
        without, _ = self.run_both("out_of_memory", ["in-vain"], {"CMPSIM_MEMORY": "1G"})
        for what in ("array", "module", "pitched"):
            self.assertIn(f"{what} of 1500 MiB: 2\n", without.results)
            self.assertIn(f"{what} of 600 MiB: 0\n", without.results)

    @ONE_THREAD
    def test_not_on_suspicion(self):
        """Where there is room for what the call can need, it lacks something else: registers."""
        made = self.launches(701, "4G")
        self.assertEqual({launches for launches, _, _ in made.values()}, {1}, made)
        self.assertEqual({frees for _, frees, _ in made.values()}, {0}, made)

    @ONE_THREAD
    def test_no_more_than_is_needed(self):
        """A gigabyte, where it is not known how much that is."""
        without, within = self.run_both("out_of_memory", ["enough"], {"CMPSIM_MEMORY": "4G"})
        self.assertIn("event: 0, last error 0\n", without.results)
        self.assertEqual(within.notes["frees"], "28")
        self.assertEqual(within.notes["served afterwards"], "20 of 20")

    @ONE_THREAD
    def test_little_more_than_is_known_to_be_needed(self):
        """A gigabyte more only if that does not do: all of 600 MiB."""
        without, within = self.run_both("out_of_memory", ["exactly"], {"CMPSIM_MEMORY": "1G"})
        self.assertIn("async: 0\nphysical: 0\n", within.results)
        self.assertIn(int(within.notes["of 4 MiB"].split()[0]), range(4, 48))
        self.assertIn(int(within.notes["more than told"].split()[0]), range(500, 600))

    def test_what_others_have_in_hand_is_awaited(self):
        _, within = self.run_both("out_of_memory", ["in-hand"], {"CMPSIM_MEMORY": "128M"})
        self.assertIn("impossible: 2\n80 MiB: 0\n", within.results)

    def test_what_others_are_just_freeing_helps_who_failed_before(self):
        """Found by review: it looked between the real free and the note of it."""
        for mode in ("wait", "auto", "order", "none"):
            with self.subTest(mode=mode):
                _, within = self.run_both("out_of_memory", ["freed-meanwhile"],
                                          {"CMPSIM_MEMORY": "4G", "CMP_MAX_BLOCK": "4G",
                                           "CMP_FREE_SYNC": mode})
                self.assertIn("impossible: 2\n2000 MiB: 0\n", within.results)
                self.assertEqual(within.notes["met"], "yes")

    def test_another_device_s_context_ends(self):
        """No call about it, while it may be going and after it went."""
        _, within = self.run_both("out_of_memory", ["last-reference"],
                                  {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2"})
        self.assertIn("module: 2\nmodule: 0\nhazards 0, misuse 0", within.results)
        # That of the first device alone, where the pool makes the stream for its releases.
        self.assertEqual(within.notes["pushed"], "1")

    @ONE_THREAD
    def test_what_did_not_help_is_known_wherever_it_writes(self):
        _, within = self.run_both("out_of_memory", ["elsewhere-in-vain"], {"CMPSIM_MEMORY": "1G"})
        self.assertIn("event: 2\nevent: 2\nevent: 2\nevent: 0\n", within.results)
        self.assertEqual(within.notes["event at 0"], "2 calls")
        self.assertEqual(within.notes["event at 1"], "1 calls")
        self.assertEqual(within.notes["event at 2"], "1 calls")

    @ONE_THREAD
    def test_no_wait_for_later_work(self):
        """Nor does who needs memory wait for more than the frees would have waited for."""
        # Another context that is busy, too: that of the device, or of one that may use its memory.
        for what, *busy in itertools.product(("physical", "array", "block", "pitched"),
                                             ("1", "0"), ("", "same", "peer")):
            for mode in ("auto", "order"):
                with self.subTest(what=what, busy=busy, mode=mode):
                    env = {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2", "CMP_FREE_SYNC": mode}
                    arguments = ["beside-staying", what, *busy]
                    without, _ = self.run_both("out_of_memory", arguments, env)
                    self.assertEqual(without.results, "0\nhazards 0, misuse 0\n")

    def test_no_wait_for_another_threads_later_work(self):
        """Which that waits for itself: nor may its launch be held up."""
        for what, busy in itertools.product(("physical", "block"), ("same", "peer")):
            for mode in ("auto", "order"):
                with self.subTest(what=what, busy=busy, mode=mode):
                    env = {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2", "CMP_FREE_SYNC": mode}
                    _, within = self.run_both("out_of_memory", ["beside-thread", what, busy], env)
                    self.assertEqual(within.results, "0\nhazards 0, misuse 0\n")
                    self.assertEqual(within.notes["met"], "yes")

    @ONE_THREAD
    def test_option_values_are_as_at_the_first_try(self):
        without, within = self.run_both("out_of_memory", ["options"], {"CMPSIM_MEMORY": "1G"})
        for what in ("module", "library"):
            self.assertIn(f"{what}: 0, log loaded, 7 bytes\n", without.results)
        self.assertEqual(within.process["out_of_memory_rescues"], 2)

    @ONE_THREAD
    def test_impossible_sizes_cost_nothing(self):
        without, within = self.run_both("out_of_memory", ["impossible"], {"CMPSIM_MEMORY": "1G"})
        self.assertIn("than the device has: 2\nall that is free: 0\n2 MiB more: 2", without.results)
        self.assertEqual(within.notes["frees"], "0")

    @ONE_THREAD
    def test_impossible_shapes_cost_nothing(self):
        """A size can be computed from widths and heights. Where there is one of these functions, no
        other device's memory helps."""
        env = {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2"}
        for pitch_is_known in (0, 1):
            without, within = self.run_both(
                "out_of_memory", ["impossible-shapes", pitch_is_known], env)
            self.assertEqual(without.results.count(": 2\n"), 9)
            for what in ("pitched", "array", "layers"):
                self.assertEqual(within.notes[what], "2 calls")
            self.assertEqual(within.notes["frees"], "0")
            self.assertEqual(within.notes["of the other device"], "0 bytes")

    @ONE_THREAD
    def test_what_did_not_help_is_remembered_for_a_while(self):
        """Also where it is not known how much a call needs."""
        _, within = self.run_both("out_of_memory", ["graph-in-vain"], {"CMPSIM_MEMORY": "1G"})
        releases, seconds = numbers(within.notes["releases"])
        self.assertIn(releases, range(1, seconds + 1))

    def test_who_lacks_no_memory_waits_for_nobody(self):
        within = run("out_of_memory", ["own-reasons"], env={"CMP_DECAY": "50ms"})
        self.assert_ok(within)
        self.assertIn("event: 2\nevent again: 2\npage-locked: 2\n", within.results)
        for what in ("event", "event again", "page-locked"):
            calls, pauses, held = numbers(within.notes[what])
            self.assertEqual((calls, held), (2, 1))  # what is being freed may have been what it lacked
            self.assertLess(pauses, 100)  # a wait has a thousand

    def test_a_wait_in_vain_is_not_made_again(self):
        within = run("out_of_memory", ["own-reasons"],
                     env={"CMP_DECAY": "50ms", "CMPSIM_MEMORY": "1G"})
        self.assert_ok(within)
        calls, pauses, held = numbers(within.notes["event again"])
        self.assertEqual((calls, held), (2, 1))
        self.assertLess(pauses, 100)

    def test_another_device_s_context_ends_meanwhile(self):
        """What its freed memory waits for is asked for, and never once it may have gone."""
        for call in ("", "cuEventQuery", "cuEventSynchronize", "cuCtxRecordEvent"):
            for mode in ("auto", "order", "none"):
                with self.subTest(call=call, mode=mode):
                    env = {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2", "CMP_FREE_SYNC": mode}
                    arguments = ["reference-during", *([call] if call else [])]
                    _, within = self.run_both("out_of_memory", arguments, env)
                    self.assertEqual(within.results, "0\nhazards 0, misuse 0\n")
                    if call == "cuEventQuery":
                        self.assertEqual(within.notes["met"], "yes")

    def test_nobody_waits_for_a_release_in_another_context(self):
        """Two waits for each other have some hundred pauses each."""
        within = run("out_of_memory", ["reference-meanwhile"],
                     env={"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2"})
        self.assert_ok(within)
        self.assertIn("hazards 0, misuse 0", within.results)
        self.assertLess(numbers(within.notes["pauses"])[0], 40)

    def test_room_during_captures(self):
        """A call of another thread; the capture lives, or dies, as without the pool."""
        for what in ("physical", "array", "async", "module", "launch"):
            for mode in range(3):
                with self.subTest(what=what, mode=mode):
                    without, within = self.run_both(
                        "out_of_memory", ["during-capture", what, mode], {"CMPSIM_MEMORY": "1G"})
                    works = (f"{what}: 0, last error 0\n  launch 0, end 0, graph made"
                             in without.results)
                    self.assertEqual(within.process["out_of_memory_rescues"], int(works))
                    self.assertTrue(works or (mode == 0 and what in ("array", "async", "module")))

    def test_captures_get_the_real_answer(self):
        """What a capturing thread calls, or goes into a capture, is called once."""
        _, within = self.run_both("out_of_memory", ["into-captures"], {"CMPSIM_MEMORY": "1G"})
        self.assertEqual(within.notes["of its own thread"], "tried 1 times")
        self.assertEqual(within.notes["into it"], "tried 1 times")
        self.assertEqual(within.notes["uploaded into it"], "tried 1 times")
        self.assertEqual(within.process["out_of_memory_rescues"], 0)

    @ONE_THREAD
    def test_room_on_other_devices(self):
        without, within = self.run_both(
            "out_of_memory", ["devices"], {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2"})
        self.assertIn("on the other device: 0\non this one: 0\n", without.results)
        self.assertEqual(within.process["out_of_memory_rescues"], 2)

    @ONE_THREAD
    def test_graph_launches_are_tried_again_on_one_device_alone(self):
        """On another one some of its nodes may run already."""
        for devices, calls in ((1, 2), (2, 1)):
            _, within = self.run_both("out_of_memory", ["graph-launches"],
                                      {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": devices})
            self.assertEqual(within.notes[f"with {devices} devices"], f"{calls} calls")

    def test_room_without_a_context(self):
        without, within = self.run_both(
            "out_of_memory", ["without-context"], {"CMPSIM_MEMORY": "1G"})
        self.assertIn("new context: 0\n", without.results)
        self.assertEqual(within.process["out_of_memory_rescues"], 1)

    def test_room_for_several_threads(self):
        """What one thread released helps those that failed just before."""
        for _ in range(3):
            without, _ = self.run_both("out_of_memory", ["threads"], {"CMPSIM_MEMORY": "1G"})
            self.assertIn("failed: 0\n", without.results)

    @ONE_THREAD
    def test_no_idle_memory_is_lost(self):
        """After a failure of ours, or a wrong call of the program, the pool goes on as before."""
        for what, served in (("event", 15), ("host-function", 20), ("destroy", 20)):
            with self.subTest(what=what):
                without, within = self.run_both(
                    "memory", ["trouble", what], {"CMPSIM_MEMORY": "1G"}
                )
                self.assertIn("512 MiB: 0, last error 0", without.results)
                self.assertGreaterEqual(within.process["out_of_memory_rescues"], 1)
                self.assertEqual(within.process["contexts_dropped"], 0)
                self.assertGreaterEqual(int(within.notes["served afterwards"].split()[0]), served)
                self.assertGreaterEqual(int(within.notes["served at last"].split()[0]), 15)
                if what == "event":
                    self.assertGreaterEqual(int(within.notes["event creations"]), 1)
                if what == "destroy":
                    self.assertIn("destroy of the primary context: 201", without.results)

    def test_every_allocation_fails(self):
        for error in (2, 46, 999):
            with self.subTest(error=error):
                without, within = self.run_both(
                    "memory", ["told"], {"CMPSIM_FAIL": f"cuMemAlloc_v2:1+:{error}"}
                )
                self.assertIn(f"cudaMalloc: {error}, last error {error}", without.results)
                self.assertEqual(within.process["failed_allocations"], 5)

    def test_one_allocation_fails_for_another_reason(self):
        """Only a lack of memory is tried again."""
        self.run_both("memory", ["told"], {"CMPSIM_FAIL": "cuMemAlloc_v2:1:999"})

    def test_random_failures(self):
        for percent in (5, 30, 80):
            for seed in (1, 2):
                with self.subTest(percent=percent, seed=seed):
                    _, within = self.run_both(
                        "memory",
                        ["failures"],
                        {"CMPSIM_FAIL": f"cuMemAlloc_v2:{percent}%:2", "CMPSIM_SEED": seed},
                    )
                    self.assertEqual(
                        within.process["failed_allocations"], int(within.notes["failed"])
                    )

    def test_the_runtimes_own_failures(self):
        self.run_both("memory", ["told"], {"CMPSIM_FAIL": "cudaMalloc:1+:2"})


if __name__ == "__main__":
    main()
