"""CMP_SHAKE: earlier work held back where the real cudaFree would have ordered it.

The programs are those of tests/gpu/races.cpp, in virtual time.
"""

import pathlib
import re
import signal
import unittest

from preload import BUILD, PRELOAD, PROGRAMS, SANITIZE, TestCase, main, run

RACES = BUILD / "races"
PRELOADS = [PROGRAMS / "virtual_clock.so", PRELOAD]
COLUMNS = ("id kind thread count holds effective earlier_call earlier_where earlier_stream free_where "
           "free_thread free_bytes later_call later_where later_stream").split()


def read_sites(path, ends=True):
    lines = pathlib.Path(path).read_text().splitlines()
    assert lines[0] == "#cmp-shake-sites 1", lines[0]
    assert lines[1] == "#" + "\t".join(COLUMNS), lines[1]
    assert lines[-1] == "#end" or not ends, lines[-1]
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines[2:] if line != "#end"]


class Shake(TestCase):
    def setUp(self):
        self.folder = self.temporary_folder()
        self.sites = self.folder / "sites"

    def shaken(self, name, mode="none", shake="record", sites=None, report=None, arguments=(),
               **settings):
        env = {"CMPSIM_HOLD_NS": "5000000", "CMP_FREE_SYNC": mode, "CMP_SHAKE": str(shake),
               "CMP_SHAKE_REPORT": str(report or self.sites)}
        if shake != "record":
            env |= {"CMP_SHAKE_SITES": str(sites or self.sites),
                    "CMP_SHAKE_REPORT": str(report or self.folder / "report")}
        result = run(RACES, [name, *arguments], preload=PRELOADS, env=env | settings)
        self.assert_ok(result)
        return result

    def test_records_where_order_counts(self):
        recorded = self.shaken("free-alone-set-and-copy")
        self.assertEqual(recorded.err, "")
        sites = read_sites(self.sites)
        race = [site for site in sites if site["earlier_call"] == "cuMemsetD8Async"]
        self.assertEqual(len(race), 1, sites)
        race = race[0]
        self.assertEqual((race["kind"], race["thread"], race["later_call"], race["free_bytes"]),
                         ("order", "1", "cuMemcpyDtoDAsync_v2", "1000"))
        self.assertNotEqual(race["earlier_stream"], race["later_stream"])
        self.assertGreater(int(race["count"]), 50)
        for where in ("earlier_where", "free_where", "later_where"):
            self.assertRegex(race[where], r"^races\+0x[0-9a-f]+(<races\+0x[0-9a-f]+)*$")
        counts = recorded.stats["shake"]
        self.assertEqual(counts["sites"], len(sites))
        self.assertEqual(counts["executions"], sum(int(site["count"]) for site in sites))
        self.assertEqual(counts["holds"], 0)

    def test_records_where_the_host_could_see(self):
        self.shaken("host-reads-copy", mode="order")
        sites = read_sites(self.sites)
        self.assertEqual([(s["kind"], s["earlier_call"]) for s in sites],
                         [("host", "cuMemcpyDtoHAsync_v2")])

    def test_is_no_site_what_the_host_waited_for(self):
        for name in ("right-blocking-streams", "right-streams-apart"):
            self.shaken(name)
            stamped = [site for site in read_sites(self.sites)
                       if site["earlier_stream"] == site["later_stream"]]
            self.assertEqual(stamped, [], name)
        self.shaken("right-blocking-streams")
        self.assertEqual(read_sites(self.sites), [], "the streams order themselves")

    def test_sites_are_the_same_in_every_run(self):
        self.shaken("reuse-of-own-pool")
        again = self.folder / "again"
        self.shaken("reuse-of-own-pool", report=again)
        self.assertEqual(read_sites(self.sites), read_sites(again))

    def recorded(self, *arguments, report=None):
        """Sites of tests/programs/shaken.cpp."""
        env = {"CMP_FREE_SYNC": "order", "CMP_SHAKE": "record", "CMP_SHAKE_REPORT": str(report or self.sites)}
        result = run("shaken", arguments, env=env)
        self.assert_ok(result)
        self.assertEqual(result.results, run("shaken", arguments, preload=False).results)
        return read_sites(report or self.sites)

    def test_threads_are_the_same_whichever_comes_first(self):
        first = self.recorded("roles", "abc")
        self.assertEqual(len(first), 3, first)
        for order in ("cba", "bac"):
            again = self.recorded("roles", order)
            self.assertEqual({(s["id"], s["earlier_where"]) for s in again},
                             {(s["id"], s["earlier_where"]) for s in first}, order)
            self.assertEqual([s["thread"] for s in again if s["id"] == first[0]["id"]],
                             [str(1 + ("m" + order).index("abc"[int(first[0]["thread"]) - 2]))])

    def test_a_thread_that_ends_leaves_its_place(self):
        few, many = (self.recorded("generations", str(count)) for count in (2, 300))
        self.assertEqual(len(few), 2, few)
        self.assertEqual({site["id"] for site in few}, {site["id"] for site in many})

    def test_threads_of_the_same_work_are_told_apart(self):
        for streams in ([], ["own"]):
            sites = self.recorded("together", *streams)
            self.assertEqual(len(sites), 8, sites)
            self.assertEqual(len({site["earlier_where"] for site in sites}), 1, sites)

    @unittest.skipIf(SANITIZE, "sanitizers follow stacks by themselves")
    def test_stacks_of_other_sizes(self):
        """Of a way up the stack that was known nothing is read where no stack is any more."""
        env = {"CMP_FREE_SYNC": "order", "CMP_SHAKE": "record", "CMP_SHAKE_REPORT": str(self.sites)}
        result = run("shaken", ["stacks"], env=env)
        self.assert_ok(result)
        self.assertIn("the same frames: 1\n", result.out)

    def test_the_seed_decides(self):
        without = run(RACES, ["free-alone-kernels"], preload=False)
        self.shaken("free-alone-kernels")
        results = set()
        for seed in (1, 2, 3):
            once, twice = (self.shaken("free-alone-kernels", shake=seed) for _ in range(2))
            self.assertEqual(once.out, twice.out)
            self.assertEqual(once.stats["shake"]["holds"], twice.stats["shake"]["holds"])
            self.assertGreater(2 * once.stats["shake"]["effective"], once.stats["shake"]["holds"])
            self.assertGreater(once.stats["shake"]["holds"], 5)
            self.assertNotEqual(once.out, without.out)
            results.add(once.out)
            held = read_sites(self.folder / "report")
            self.assertEqual(sum(int(site["holds"]) for site in held), once.stats["shake"]["holds"])
            self.assertEqual({site["earlier_call"] for site in held}, {"cuLaunchKernel"})
        self.assertEqual(len(results), 3)

    def test_only_listed_sites_are_held(self):
        without = run(RACES, ["free-alone-kernels"], preload=False)
        self.shaken("free-alone-kernels")
        lines = self.sites.read_text().splitlines(keepends=True)
        self.assertEqual(len(lines), 5)
        changes = []
        for line in lines[2:4]:
            alone = self.folder / "alone"
            alone.write_text(lines[0] + line)
            result = self.shaken("free-alone-kernels", shake=1, sites=alone)
            self.assertGreater(result.stats["shake"]["holds"], 5)
            changes.append(result.out != without.out)
        self.assertEqual(sorted(changes), [False, True], "the side that reads is no race by itself")

    def test_nothing_changes_without_a_race(self):
        """And every hold ends: at waits, behind the later work, by the timer."""
        timed = 0
        for name, mode in (("right-event", "none"), ("right-synchronised-stream", "none"),
                           ("right-graphs", "none"), ("right-host-waits", "order")):
            without = run(RACES, [name], preload=False)
            self.shaken(name, mode)
            for seed in (1, 2, 3, 4):
                result = self.shaken(name, mode, shake=seed)
                self.assertEqual(result.out, without.out, name)
                self.assertEqual(result.err, "")
                counts = result.stats["shake"]
                self.assertLessEqual(counts["effective"] + counts["let_go_by_timer"],
                                     counts["holds"])
                timed += counts["let_go_by_timer"]
        self.assertGreater(timed, 0)

    def test_a_third_of_the_time_is_without_holds(self):
        """Wherever the program is: it may end at any moment."""
        report = self.folder / "sim.txt"
        for name, mode in (("host-reads-copy", "order"), ("right-event", "none")):
            self.shaken(name, mode)
            for iterations in (8, 16, 32, 128):
                for seed in (1, 2, 3):
                    result = self.shaken(name, mode, shake=seed, CMPSIM_REPORT=str(report),
                                         VIRTUAL_CLOCK_BEGIN_NS="0",
                                         arguments=("--iterations", str(iterations)))
                    elapsed = int(re.search(r"^now (\d+)$", report.read_text(), re.M)[1])
                    held = result.stats["shake"]["held_milliseconds"] * 1_000_000
                    self.assertLessEqual(3 * held, 2 * elapsed, (name, iterations, seed))

    def test_the_timer_lets_go(self):
        """In real time: nothing else ends a hold here before the host waits for ever."""
        for name, mode in (("right-event", "none"), ("right-graphs", "none"),
                           ("right-host-asks-until-done", "order")):
            without = run(RACES, [name], preload=False)
            env = {"CMP_FREE_SYNC": mode, "CMP_SHAKE_REPORT": str(self.sites)}
            self.assert_ok(run(RACES, [name], env=env | {"CMP_SHAKE": "record"}))
            env = {"CMP_FREE_SYNC": mode, "CMP_SHAKE_SITES": str(self.sites), "CMP_SHAKE": "1"}
            shaken = run(RACES, [name], env=env)
            self.assert_ok(shaken)
            self.assertEqual(shaken.out, without.out)
            self.assertGreater(shaken.stats["shake"]["holds"], 0)

    def held(self, *arguments, mode="none", **more):
        """What a seed makes of tests/programs/shaken.cpp: stdout, the statistics."""
        env = {"CMP_FREE_SYNC": mode, "CMPSIM_HOLD_NS": "5000000", "CMP_SHAKE_REPORT": str(self.folder / "report"),
               **more}
        recorded = run("shaken", arguments, preload=PRELOADS,
                       env=env | {"CMP_SHAKE": "record", "CMP_SHAKE_REPORT": str(self.sites)})
        self.assert_ok(recorded)
        shaken = run("shaken", arguments, preload=PRELOADS,
                     env=env | {"CMP_SHAKE": "1", "CMP_SHAKE_SITES": str(self.sites)})
        self.assert_ok(shaken)
        self.assertEqual(shaken.err, "")
        self.assertEqual(shaken.results, run("shaken", arguments, preload=False).results)
        self.out = shaken.out
        return shaken.stats["shake"]

    def test_what_waits_lets_go(self):
        """At once: no hold of work that nobody waits for lasts as long as one may."""
        for how in ("copy", "stream", "stream-of-legacy", "device", "event", "question",
                    "destroy", "free-in-capture"):
            counts = self.held("holds", how)
            self.assertEqual([site["count"] for site in read_sites(self.sites)], ["100"], how)
            self.assertEqual(counts["let_go_by_timer"], 0, (how, counts))
            self.assertGreater(counts["holds"], counts["effective"], (how, counts))  # some were in vain
            self.assertGreater(counts["effective"], 0, (how, counts))
        counts = self.held("holds", "other-stream")
        self.assertGreater(counts["holds"], 10)
        self.assertEqual(counts["effective"], counts["holds"], "a wait for another stream ends nothing")

    def test_holds_in_vain_become_fewer(self):
        """Of 2,048 executions one in eight, then one in 32, and so on; those that are effective stay."""
        for how in ("effective", "copy"):
            counts = self.held("often", how)
            self.assertEqual(counts["executions"], 2048, how)
            self.assertGreater(counts["holds"], 150, how)
            self.assertEqual(counts["effective"], counts["holds"], how)
        for how in ("in-vain", "copy-on-device"):
            counts = self.held("often", how)
            self.assertEqual(counts["executions"], 2048, how)
            self.assertGreaterEqual(counts["holds"], 4, how)
            self.assertLess(counts["holds"], 80, how)

    def test_the_host_that_goes_on(self):
        """Is seen by the first call of the thread that freed, whatever that is."""
        for following in ("launch", "free", "query"):
            counts = self.held("host", following, mode="order")
            self.assertGreater(counts["holds"], 30, following)
            self.assertEqual(counts["effective"], counts["holds"], following)
        counts = self.held("host", "thread", mode="order")
        self.assertEqual(counts["effective"], 0, "another thread of the same number")
        (site,) = read_sites(self.sites)
        self.assertEqual((site["kind"], site["later_call"]), ("host", "-"))

    def test_streams_that_are_no_others(self):
        self.assertEqual(self.recorded("own"), [], "one has two names, before its first work and after it")
        self.assertEqual(self.recorded("destroyed"), [], "what is gone is not in the next one's way")
        self.assertEqual(len(self.recorded("many")), 255, "so many and the first are told apart")

    def test_what_may_wait_lets_go_before_it_does(self):
        for how in ("own-stream", "free-in-capture", "free-managed", "free-host", "unregister", "release"):
            self.held("ends", how)
            self.assertRegex(self.out, r"# held (?!0,)\d+, still held 0\n", how)
        self.held("ends", "nothing")
        held, still = re.search(r"# held (\d+), still held (\d+)\n", self.out).groups()
        self.assertEqual(held, still)
        self.assertNotEqual(held, "0")

    def test_the_exit_lets_go(self):
        """And from then on nothing is held."""
        self.held("ends", "exit")
        self.assertIn("# held 1\n# still held 0\n# held 0\n", self.out)

    def test_what_waits_itself_is_not_held(self):
        """The host would wait for the hold. The rounds between those are held."""
        counts = self.held("copies")
        self.assertGreater(counts["holds"], 3)
        self.assertEqual((counts["effective"], counts["let_go_by_timer"]), (counts["holds"], 0))

    def test_what_is_captured_is_no_execution(self):
        counts = self.held("holds", "capture")
        self.assertEqual(counts["executions"], 100)
        self.assertGreater(counts["holds"], 5)

    def test_no_hold_is_longer_than_five_milliseconds(self):
        """Where nothing else ends it, for ten."""
        counts = self.held("holds", "time", CMPSIM_CALL_NS="10000", CMPSIM_HOLD_NS="20000000")
        self.assertGreater(counts["let_go_by_timer"], 5)
        self.assertLessEqual(counts["held_milliseconds"], 5 * counts["holds"])

    def test_contexts_that_end(self):
        self.assertGreater(self.held("resets", "20")["holds"], 25)
        self.assertEqual(len(read_sites(self.sites)), 1, "streams of contexts that are gone are forgotten")

    def test_where_memory_is_mapped_all_work_can_be_seen(self):
        (site,) = self.recorded("mapped")
        self.assertEqual((site["kind"], site["earlier_call"]), ("host", "cuLaunchKernel"))
        self.assertEqual(site["later_call"], "cuLaunchKernel", "what the thread that freed submitted next")

    def test_what_was_waited_for_before_the_free(self):
        self.assertEqual(self.recorded("waited"), [])

    def test_killed_processes_leave_what_they_did(self):
        for how, code in (("_exit", 6), ("abort", -signal.SIGABRT), ("kill", -signal.SIGKILL)):
            env = {"CMP_FREE_SYNC": "order", "CMP_SHAKE": "record", "CMP_SHAKE_REPORT": str(self.sites)}
            result = run("shaken", ["dies", how, str(self.sites)], env=env)
            self.assertEqual(result.code, code, repr(result))
            self.assertNotIn("#end", self.sites.read_text())
            self.assertEqual(len(read_sites(self.sites, ends=False)), 2)
            # One that is killed while it writes leaves the beginning of a new file, which nobody reads.
            self.assertEqual([path for path in self.folder.iterdir() if path.suffix != ".new"], [self.sites])

    def test_a_report_replaces_nothing_else(self):
        for path in (self.folder, self.folder / "letter", self.folder / "nowhere" / "sites"):
            if path.name == "letter":
                path.write_text("a letter\n")
            said = self.shaken("right-event", report=path).err
            self.assertRegex(said, rf"\Acmp: CMP_SHAKE_REPORT={re.escape(str(path))} cannot be written: [^\n]+\n\Z")
        self.assertEqual((self.folder / "letter").read_text(), "a letter\n")
        said = self.shaken("right-event", report=self.folder / ("x" * 5000)).err
        self.assertEqual(said, "cmp: the name of CMP_SHAKE_REPORT is too long\n")

    def test_what_it_cannot_do_is_said(self):
        nothing = r"\Acmp: CMP_SHAKE does nothing: [^\n]+\n\Z"
        for mode in ("auto", "wait"):
            self.assertIn("with a seed it needs CMP_FREE_SYNC=none or order", self.shaken("right-event", mode, shake=1).err)
        self.assertRegex(self.shaken("right-event", shake=1).err, nothing, "no file of sites")
        (self.folder / "letter").write_text("a letter\n")
        result = self.shaken("right-event", shake=1, sites=self.folder / "letter")
        self.assertRegex(result.err, nothing)
        self.assertNotIn("shake", result.stats)
        result = self.shaken("right-event", shake=1, sites=self.folder / "letter", mode="none",
                             CMP_MODE="observe")
        self.assertEqual(result.err, "")
        for wrong in ("0.5", "yes please", "-1"):
            self.assertIn("CMP_SHAKE", self.shaken("right-event", shake=wrong).err)

    def test_a_driver_that_refuses_costs_nothing(self):
        without = run(RACES, ["free-alone-kernels"], preload=False)
        self.shaken("free-alone-kernels")
        for failure in ("cuStreamWaitValue32_v2:1+:1", "cuStreamWriteValue32_v2:1+:1",
                        "cuMemHostRegister_v2:1+:1"):
            result = self.shaken("free-alone-kernels", shake=1, CMPSIM_FAIL=failure)
            self.assertEqual(result.stats["shake"]["effective"], 0, failure)
            said = "" if "Write" in failure else "cmp: CMP_SHAKE does nothing any more: the driver refuses"
            self.assertEqual(result.err[:len(said) or None], said)
            self.assertLessEqual(result.err.count("\n"), 1)
            if "Write" not in failure:  # without it holds last as long as one may
                self.assertEqual(result.out, without.out, failure)
                self.assertEqual(result.stats["shake"]["holds"], 0, failure)

    def test_a_driver_that_refuses_now_and_then_is_asked_again(self):
        self.shaken("free-alone-kernels")
        for failure in ("cuStreamWaitValue32_v2:1:1", "cuMemHostRegister_v2:1:1"):
            result = self.shaken("free-alone-kernels", shake=1, CMPSIM_FAIL=failure)
            self.assertGreater(result.stats["shake"]["effective"], 3, failure)
            self.assertEqual(result.err, "")
        every_other = ",".join(f"cuStreamWaitValue32_v2:{number}:1" for number in range(1, 40, 2))
        counts = self.held("often", "effective", CMPSIM_FAIL=every_other)
        self.assertGreater(counts["holds"], 100, "eight in a row are too many, not eight in all")

    def test_other_programs(self):
        """Captures, contexts that end, threads, forks: as without the pool."""
        for program, args in (("captures", ["own"]), ("captures", ["endings"]), ("captures", ["reset"]),
                              ("captures", ["recapture"]), ("forks", []), ("orders", ["capture"]),
                              ("orders", ["reuse", "1"]), ("contexts", ["reset"]),
                              ("work", ["4", "200", "1"]), ("devices", ["stays"]), ("endings", ["busy-exit-in-thread"]),
                              *([] if "thread" in SANITIZE else [("endings", ["pthread-exit"])])):
            more = {"CMPSIM_DEVICES": "2"} if program == "devices" else {}
            more["CMP_DECAY"] = "off"  # its thread keeps a process that pthread_exit ends
            without = run(program, args, preload=False, env=more)
            for mode in ("none", "order"):
                env = {"CMP_FREE_SYNC": mode, "CMPSIM_HOLD_NS": "5000000", **more}
                recorded = run(program, args, env=env | {"CMP_SHAKE": "record",
                                                         "CMP_SHAKE_REPORT": str(self.sites)})
                self.assertEqual(recorded.code, without.code, repr(recorded))
                shaken = run(program, args, env=env | {"CMP_SHAKE": "3",
                                                       "CMP_SHAKE_SITES": str(self.sites)})
                self.assertEqual(shaken.code, without.code, repr(shaken))
                if program not in ("contexts", "work", "devices"):  # which read what a free would have ordered
                    self.assertEqual(recorded.results, without.results)
                    self.assertEqual(shaken.results, without.results)
                self.assertIsNone(re.search(r"misuse [1-9]", shaken.out), shaken.out)


if __name__ == "__main__":
    main()
