"""What a report says and shows: headline, advice, ranks and hosts, rounding, pages; of invented
statistics and traces, and of a real run on the simulated CUDA."""

import copy
import html.parser
import itertools
import json
import re
import stat
import sys
import xml.etree.ElementTree

from command import LIBRARY, PLAIN, PROGRAMS, SOURCE, TestCase, main, run

sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload.records import rounding, trace_file
from cmp_preload.records.calls import Call, Trace
from cmp_preload.records.collection import Collection
from cmp_preload.reporters import advice, drawing, page, plots, process_tables, text, trace_tables

FORMATS = SOURCE / "scripts" / "docs" / "formats"
SAMPLE = json.loads((FORMATS / "statistics.sample.json").read_text())
MIB = 1 << 20
NARROW_SCREEN = 390


def tier(size, requests, asked, block=None, real=0):
    """A row of a statistics file."""
    row = dict.fromkeys((name for name in SAMPLE["tiers"][0]), 0)
    return {
        **row,
        "bytes": size,
        "requests": requests,
        "thread_cache_hits": requests - real,
        "real": real,
        "frees": requests,
        "requested_bytes": asked,
        "block_bytes": block or requests * size,
        "block_freed_bytes": block or requests * size,
    }


def process(pid, tiers=None, run_of_it=None, devices=None, **counters):
    """Statistics of a process: of 10 s, a thousand allocations, nothing else."""
    tiers = tiers or [tier(4096, 1000, 1000 * 4096)]
    found = copy.deepcopy(SAMPLE)
    found["pid"], found["program"], found["tiers"] = pid, "solver", tiers
    found["process"] = {**dict.fromkeys(found["process"], 0), "live_peak_bytes": MIB}
    found["process"]["reserved_peak_bytes"] = MIB
    found["process"].update(counters)
    for name in found["totals"]:
        found["totals"][name] = sum(one.get(name, 0) for one in tiers)
    totals = found["totals"]
    hits = totals["thread_cache_hits"] + totals["global_pool_hits"]
    totals["hit_rate"] = hits / max(1, totals["requests"])
    found["devices"] = devices or []
    found["run"].update(
        {"command": "./solver 9", "host": "n1", "rank": None, "nanoseconds": 10 * 10**9},
        settings=[],
        gpus=["NVIDIA H200"],
        driver="570.86.15",
        cuda="12.8",
    )
    found["run"].update(run_of_it or {})
    return found


def ranks(count, hosts):
    """Ranks on hosts in turn; the last ones are the busiest."""
    return [
        process(
            100 + rank,
            [tier(4096, 1000 + rank, (1000 + rank) * 4096)],
            {"rank": rank, "host": f"n{rank % hosts + 1}"},
            live_peak_bytes=(rank + 1) * MIB,
            reserved_peak_bytes=(rank + 2) * MIB,
            reserved_bytes=MIB,
            wait_ns=rank * 10**6,
            wait_calls=rank,
            wait_copies=rank,
        )
        for rank in range(count)
    ]


class Written(TestCase):
    def collection(self, *everyone):
        """What the command reads of these processes and traces."""
        folder = self.folder()
        for i, one in enumerate(everyone):
            if isinstance(one, Trace):
                trace_file.write(one, folder / f"{i}.trace")
            else:
                (folder / f"{i}.json").write_text(json.dumps(one, indent=2))
        return Collection([str(folder)], lambda: LIBRARY)

    def findings(self, *everyone):
        return advice.findings(self.collection(*everyone))

    def page(self, *everyone):
        path = self.folder() / "page.html"
        page.write(str(path), self.collection(*everyone), False)
        return path.read_text()


class Headline(Written):
    def of(self, *everyone):
        return advice.headline(self.collection(*everyone))

    def test_all_is_well(self):
        said = self.of(process(1, real_malloc_ns=10**6))
        self.assertEqual(
            said,
            "100.0% of 1,000 allocations without a real call; real calls and waits took 1.000 ms "
            "(threads added up), the run 10.00 s. Nothing to do.",
        )

    def test_what_to_do_first(self):
        """The worst in seconds comes first."""
        one = process(
            1,
            bound_waits=100,
            bound_wait_ns=2 * 10**9,
            wait_copies=100,
            wait_calls=200,
            wait_ns=9 * 10**9,
        )
        self.assertIn("What to do: set CMP_FREE_SYNC=order, if", self.of(one))
        one["process"]["bound_wait_ns"] = 8 * 10**9
        self.assertIn("What to do: set CMP_RESERVE=1.5x+1G (", self.of(one))

    def test_others(self):
        observed = process(1, [tier(4096, 9, 9 * 4096, real=9)], real_malloc_ns=4 * 10**9)
        observed["mode"] = "observe"
        self.assertIn("Observed alone: 9 allocations", self.of(observed))
        self.assertIn("run cmp-preload trial", self.of(observed))
        off = process(1, [tier(4096, 0, 0)])
        self.assertIn("asked for nothing", self.of(off))
        off["mode"] = "off"
        self.assertIn("The pool was off", self.of(off))
        self.assertEqual(
            self.of(Trace([])), "No allocation and no free is in the trace. Nothing to do."
        )
        calls = [Call.of(0, 1, 1, "refill", 4096, MIB), Call.of(9, 1, 1, "pooled", 4096, 0)]
        self.assertIn("2 calls, 50% of them real, took 0.002 µs (threads added up); the program held 1 MiB", self.of(Trace(calls)))

    def test_in_json(self):
        folder = self.folder()
        one = process(1, wait_copies=9, wait_calls=9, wait_ns=9 * 10**9)
        (folder / "one.json").write_text(json.dumps(one, indent=2))
        found = json.loads(run("report", "--json", folder).stdout)
        self.assertIn("set CMP_FREE_SYNC=order", found["headline"])
        self.assertEqual(found["findings"][0]["seconds"], 9)
        self.assertTrue(found["findings"][0]["to_do"].startswith("set CMP_FREE_SYNC=order"))


class Advice(Written):
    def test_the_memory_limit(self):
        """Most of the time in waits for it: what to set, and what that can take."""
        one = process(
            1,
            wait_calls=1000,
            wait_ns=13_900_000_000,
            bound_waits=990,
            bound_wait_ns=13_800_000_000,
            real_malloc_ns=100_000_000,
            live_peak_bytes=4 << 30,
            reserved_peak_bytes=5 << 30,
        )
        (first, *_) = self.findings(one)
        self.assertIn("13.80 s in 990 frees that waited for older work, of 14.00 s", first.what)
        self.assertIn("set CMP_RESERVE=1.5x+1G (", first.to_do)
        self.assertIn("up to 7 GiB, so far 5 GiB", first.to_do)
        # With it set already: more.
        one["run"]["settings"] = ["CMP_RESERVE=1.5x+1G"]
        self.assertIn("set CMP_RESERVE=2x+4G (", self.findings(one)[0].to_do)
        # A library that did not count that time.
        del one["process"]["bound_wait_ns"]
        self.assertIn("13.76 s in 990 frees", self.findings(one)[0].what)
        # What the limit gives back by real frees is its cost as well.
        released = process(1, real_free_ns=3 * 10**9, real_free_calls=70)
        self.assertFalse(any(f.what.startswith(advice.LIMIT) for f in self.findings(released)))
        released["totals"]["blocks_released"] = 70
        (first, *_) = self.findings(released)
        self.assertIn("the memory limit: 3.000 s in 70 real frees of idle blocks", first.what)
        self.assertIn("CMP_RESERVE", first.to_do)

    def test_little_is_no_finding(self):
        for one in (
            process(1, wait_calls=9, wait_ns=10**8, bound_waits=9, bound_wait_ns=10**8),
            process(1, wait_calls=9, wait_ns=10**8, wait_copies=9),
            process(1, real_malloc_ns=10**8, real_malloc_calls=1),
        ):
            self.assertEqual(self.findings(one), [])

    def test_waits(self):
        waits = {"wait_calls": 9, "wait_ns": 10**9}
        for reason in advice.REASONS:
            self.assertIn(f"wait_{reason}", LIBRARY.counters("process"))
            (one,) = self.findings(process(1, **waits, **{f"wait_{reason}": 9}))
            self.assertIn("1.000 s in frees that waited for the GPU: ", one.what)
            self.assertIn(advice.REASONS[reason], one.what)
            self.assertIn("set CMP_FREE_SYNC=order", one.to_do)
        counted = LIBRARY.counters("process")
        every = {name for name in counted if re.match("wait_(?!calls|ns)", name)}
        self.assertEqual(every, {f"wait_{reason}" for reason in (*advice.REASONS, "unknown")})
        (one,) = self.findings(process(1, **waits, wait_unknown=9))
        self.assertEqual(one.to_do, "")
        (one,) = self.findings(process(1, **waits))
        self.assertIn("12.5", one.to_do)
        (one,) = self.findings(process(1, None, {"settings": ["CMP_FREE_SYNC=wait"]}, **waits))
        self.assertIn("set CMP_FREE_SYNC=auto", one.to_do)

    def test_real_calls(self):
        cost = {"real_malloc_ns": 10**9, "real_malloc_calls": 500}
        large = process(1, [tier(4 << 30, 500, 500 << 32, real=500)], **cost)
        (one,) = self.findings(large)
        self.assertIn("500 allocations went past the pool, of up to 4 GiB", one.what)
        self.assertIn("CMP_MAX_BLOCK", one.to_do)
        rare = process(1, [tier(4096, 1000, 1000 * 4096)], **cost)
        rare["totals"].update(thread_cache_hits=500, refills=500, hit_rate=0.5)
        (one,) = self.findings(rare)
        self.assertIn("little was reused", one.what)
        self.assertIn("cmp-preload tune", one.to_do)
        (one,) = self.findings(process(1, **cost))
        self.assertEqual(one.to_do, "")
        (one,) = self.findings(process(1, **cost, capture_real_calls=400))
        self.assertIn("capture", one.what)

    def test_one_rank_of_many(self):
        everyone = ranks(8, 2)
        self.assertEqual(self.findings(*everyone), [])
        everyone[5]["process"]["wait_ns"] = 10**9
        (one,) = self.findings(*everyone)
        self.assertIn("rank 5 on n2 spent 1.000 s in real calls and waits", one.what)
        self.assertRegex(one.to_do, r"^see it alone: cmp-preload report /\S+/5\.json$")

    def test_errors_and_memory(self):
        said = self.findings(
            process(
                1,
                [tier(320 << 10, 1000, 1000 * (257 << 10))],
                failed_allocations=2,
                double_frees=1,
                live_peak_bytes=1 << 30,
                reserved_peak_bytes=2 << 30,
                out_of_memory_rescues=3,
            )
        )
        self.assertEqual(
            [(one.what.split(",")[0], re.split("[,:]", one.to_do)[0]) for one in said],
            [
                ("2 allocations failed", "see whether they fail with CMP_MODE=off"),
                ("the program freed 1 block twice", "find it with compute-sanitizer"),
                ("the pool held 2 GiB at most", "set CMP_RESERVE=1x or CMP_DECAY=1s"),
                ("3 calls ran out of memory", ""),
                (
                    "blocks below 2 MiB are 25% larger than the driver's would be",
                    "set CMP_TIER_STEPS=16",
                ),
            ],
        )

    def test_not_served(self):
        unreached = {
            name: SAMPLE[name] for name in ("cmp_statistics", "version", "pid", "mode", "run")
        }
        unreached.update(program="tool", reached=False, reason="it is past us")
        unreached["run"] = {**unreached["run"], "gpus": []}
        aside = process(2)
        aside["aside"] = "x.so is in front"
        said = self.findings(unreached, {**unreached, "pid": 5}, aside)
        self.assertEqual(
            [(one.what, one.to_do) for one in said],
            [
                (
                    "2 processes of tool used CUDA, but the pool served nothing: it is past us",
                    f"run cmp-preload doctor -- {SAMPLE['run']['command']}",
                ),
                (
                    "solver: every call was real: x.so is in front",
                    "run cmp-preload doctor -- ./solver 9",
                ),
            ],
        )

    def test_functions_of_a_later_cuda(self):
        before, one, two = process(1), process(2), process(3)
        del before["later_functions"]
        one["later_functions"] = ["cuNew", "cuNewest"]
        two["later_functions"] = ["cuNew"]
        (said,) = self.findings(before, one, two)
        self.assertIn("were looked up: cuNew, cuNewest; work that they submit", said.what)
        self.assertIn("CMP_MODE=off", said.to_do)

    def test_of_traces(self):
        """Where the time of the calls went: what a trace knows of it, and how to know more."""
        calls = [Call.of(0, 10**9, 1, "refill", 4096, MIB), Call.of(10**9, 5, 1, "pooled", 4096, MIB)]
        calls += [Call.of(2 * 10**9, 10, 1, "thread_cache", 4096, MIB)]
        calls += [Call.of(3 * 10**9, 4 * 10**9, 1, "waited", 4096, MIB)]
        free, real = self.findings(Trace(calls))
        self.assertEqual(
            free.what,
            "4.000 s in 2 frees into the pool (threads added up), 4.000 s of it in 1 that waited for "
            "the GPU",
        )
        self.assertIn("CMP_STATS=FILE", free.to_do)
        self.assertEqual(real.what, "1.000 s in 1 real call (threads added up)")
        self.assertIn("cmp-preload tune", real.to_do)
        self.assertIn("took 5.000 s", advice.headline(self.collection(Trace(calls))))
        (real,) = self.findings(Trace([Call.of(0, 10**9, 1, "real", 4096, MIB)]))
        self.assertIn("cmp-preload trial", real.to_do)
        # Statistics of the same run know better; a CSV has no times.
        self.assertEqual(self.findings(process(1), Trace(calls)), [])
        quick = [Call.of(0, 0, 1, "real", 4096, MIB), Call.of(10**9, 0, 1, "real_free", 4096, MIB)]
        self.assertEqual(self.findings(Trace(quick)), [])
        self.assertNotIn("took", advice.headline(self.collection(Trace(quick))))

    def test_values_in_any_case(self):
        waits = {"wait_calls": 9, "wait_ns": 10**9}
        (one,) = self.findings(process(1, None, {"settings": ["CMP_FREE_SYNC=WAIT"]}, **waits))
        self.assertIn("set CMP_FREE_SYNC=auto", one.to_do)
        one = process(1, None, {"settings": ["CMP_RESERVE=1.5X+1g"]}, bound_waits=9, **waits)
        one["process"]["bound_wait_ns"] = 10**9
        self.assertIn("set CMP_RESERVE=2x+4G (", self.findings(one)[0].to_do)

    def test_simulated(self):
        (one,) = self.findings(process(1, None, {"gpus": ["Simulated CUDA device"]}))
        self.assertEqual(
            one, ("it ran on the simulated CUDA: its times say nothing about a GPU", "", 0)
        )

    def test_in_text_and_page(self):
        """Under each finding, what to do."""
        one = process(1, wait_calls=9, wait_ns=10**9, wait_graphs=9)
        (finding,) = self.findings(one)
        said = text.report(self.collection(one), False)
        self.assertIn(f"\n- {finding.what}\n  -> {finding.to_do}\n", said)
        item = f'{finding.what}<br><span class="do">→ {finding.to_do}</span>'
        self.assertIn(item, self.page(one))


class Ranks(Written):
    def rows(self, said, word):
        """Of the table with a column of that name, or of facts that begins with it."""
        for part in said.split("\n\n"):
            rows = [re.split(r"  +", line.strip()) for line in part.splitlines()]
            if word in rows[0] and "block" not in rows[0]:
                return rows
        raise AssertionError(f"no {word} in\n{said}")

    def test_by_rank_and_host(self):
        found = self.collection(*reversed(ranks(4, 2)))
        for word in ("allocations", "program's peak"):
            head, *rows = self.rows(text.report(found, False), word)
            self.assertEqual(head[:3], ["rank", "host", "process"])
            each = [row[:2] for row in rows[:4]]
            self.assertEqual(each, [["0", "n1"], ["1", "n2"], ["2", "n1"], ["3", "n2"]])
            self.assertEqual(
                [row[:2] for row in rows[4:]],
                [["n1", "all 2 of it"], ["n2", "all 2 of it"], ["all 4", rows[6][1]]],
            )
        rows = self.rows(text.report(found, False), "program's peak")
        self.assertEqual(rows[1][3:], ["1 MiB", "2 MiB", "100%", "0 B", "1 MiB"])
        self.assertEqual(rows[5][2:], ["up to 4 MiB", "up to 6 MiB", "50%", "0 B", "2 MiB"])

    def test_without_ranks(self):
        one, other = process(1), process(2, [tier(4096, 9000, 9000 * 4096)])
        head, *rows = self.rows(text.report(self.collection(one, other), False), "allocations")
        self.assertEqual(head[0], "process")
        self.assertEqual([row[0] for row in rows], ["solver 2", "solver 1", "all 2"])
        # One host of several is named even so; rank 0 of a batch script is no rank among ranks.
        other["run"].update(host="n2", rank=0)
        head, *rows = self.rows(text.report(self.collection(one, other), False), "allocations")
        self.assertEqual(head[:2], ["host", "process"])

    def test_nothing_is_left_out_silently(self):
        found = self.collection(*ranks(32, 2))
        said = text.report(found, False)
        for word in ("allocations", "program's peak"):
            head, *rows = self.rows(said, word)
            self.assertEqual(len(rows), 20 + 1 + 2 + 1)
            self.assertEqual([row[0] for row in rows[:20]], [str(i) for i in range(12, 32)])
            self.assertEqual(rows[20], ["… 12 more (--all)"])
            self.assertEqual(len(self.rows(text.report(found, True), word)), 1 + 32 + 2 + 1)
        shown = self.page(*ranks(32, 2))
        self.assertIn("Peak memory, 20 of 32: those with most of it", Page(shown).titles)
        for rank in range(32):
            self.assertIn(f"<td>solver {100 + rank}</td>", shown)

    def test_who_spends_most_is_shown(self):
        """Also where it allocates least."""
        everyone = ranks(32, 2)
        everyone[3]["process"]["real_malloc_ns"] = 9 * 10**9
        found = self.collection(*everyone)
        (finding,) = [one for one in advice.findings(found) if "rank 3 " in one.what]
        self.assertRegex(
            finding.what,
            r"^rank 3 on n2 spent 9\.003 s in real calls and waits; half of the 32 processes no more "
            r"than 17\.00 ms$",
        )
        self.assertIn("3", [row[0] for row in self.rows(text.report(found, False), "allocations")])
        shown = Page(self.page(*everyone))
        title = "Time in allocation, threads together, 20 of 32: those with most of it"
        self.assertIn("rank 3 n2", shown.figure(title))

    def test_facts(self):
        """Command, host, GPU, driver, settings and time of all, each value once."""
        everyone = ranks(32, 2)
        everyone[5]["run"]["settings"] = ["CMP_RESERVE=1x", "CMP_DECAY=1s"]
        everyone[7]["run"]["gpus"] = ["NVIDIA A", "NVIDIA B"]
        everyone[7]["devices"] = [{**SAMPLE["devices"][0], "device": 1}]
        everyone[9]["run"]["begin"] = "2030-01-01T00:00:00Z"
        everyone[9]["run"]["nanoseconds"] = 90 * 10**9
        rows = process_tables.run_rows(self.collection(*everyone).everyone, False)
        self.assertEqual(
            [tuple(row) for row in rows],
            [
                ("command", "./solver 9"),
                ("host", "n1 (16 processes)"),
                ("host", "n2 (16 processes)"),
                ("rank", "0–31"),
                ("GPU", "NVIDIA H200 (31 processes)"),
                ("GPU", "NVIDIA B (1 process)"),
                ("driver", "570.86.15, CUDA 12.8"),
                ("pool", f"cmp {SAMPLE['version']}"),
                ("settings", "CMP_RESERVE=1x CMP_DECAY=1s (1 process)"),
                ("began", f"{SAMPLE['run']['begin']} to 2030-01-01T00:00:00Z"),
                ("ran", "10.00 s to 90.00 s"),
            ],
        )
        many = [process(i, None, {"command": f"./a {i}"}) for i in range(7)]
        rows = process_tables.run_rows(self.collection(*many).everyone, False)
        self.assertIn(["command", "… 3 others (--all)"], rows)
        rows = process_tables.run_rows(self.collection(*many).everyone, True)
        self.assertEqual([row[1] for row in rows if row[0] == "command"][-1], "./a 6 (1 process)")

    def test_traces_of_ranks(self):
        """Rows by rank, and which runs they were, as of statistics; each run once."""
        calls = [Call.of(0, 1, 1, "refill", 4096, MIB)]

        def trace(rank, host):
            more = {"command": "./solver 9", "settings": {"CMP_DECAY": "1s"}, "version": "1.0"}
            return Trace(calls, program="solver", pid=rank + 9, rank=rank, host=host, **more)

        found = self.collection(trace(1, "n2"), trace(0, "n1"))
        head, *rows = self.rows(text.report(found, False), "peak asked for")
        self.assertEqual(head[:3], ["rank", "host", "trace"])
        self.assertEqual([row[:3] for row in rows[:2]], [["0", "n1", "solver 9"], ["1", "n2", "solver 10"]])
        rows = trace_tables.run_rows(found, False)
        self.assertEqual(
            rows,
            [
                ["command", "./solver 9"],
                ["host", "n2 (1 process)"],
                ["host", "n1 (1 process)"],
                ["rank", "0–1"],
                ["pool", "cmp 1.0"],
                ["settings", "CMP_DECAY=1s"],
            ],
        )
        one = process(9, None, {"rank": 0})  # on n1: the first of the traces is of it, too
        rows = trace_tables.run_rows(self.collection(one, trace(0, "n1"), trace(1, "n2")), False)
        self.assertIn(["command", "./solver 9"], rows)
        self.assertIn(["host", "n2 (1 process)"], rows)

    def test_a_file_of_a_library_that_did_not_say(self):
        one = process(1)
        del one["run"]
        said = text.report(self.collection(one), False)
        self.assertIn("1,000 allocations", said)
        self.assertNotIn("the run", said)

    def test_a_wrong_run_is_refused(self):
        path = self.folder() / "one.json"
        for field, wrong in (
            ("rank", "3"),
            ("rank", -1),
            ("rank", True),
            ("gpus", "H200"),
            ("gpus", [1]),
            ("host", 3),
            ("settings", {}),
            ("nanoseconds", 1.5),
            ("command", None),
        ):
            path.write_text(json.dumps(process(1, None, {field: wrong}), indent=2))
            self.assert_refused(run("report", path), "its run cannot be", code=1)

    def test_a_real_run(self):
        """Two ranks, as a launcher would start them."""
        folder = self.folder()
        script = self.script(
            f"SLURM_PROCID=1 {PLAIN} 300 & SLURM_PROCID=0 {PROGRAMS}/work 2 50 1 & wait"
        )
        self.assert_ok(run("run", "--reports", folder, "--tier-steps", "8", "--", script))
        said = run("report", folder).stdout
        head, *rows = self.rows(said, "allocations")
        self.assertEqual(head[:2], ["rank", "process"])
        self.assertEqual([row[0] for row in rows], ["0", "1", "all 2"])
        facts = self.rows(said, "command")
        self.assertIn(["GPU", "Simulated CUDA device"], facts)
        self.assertIn(["rank", "0–1"], facts)
        self.assertTrue(any("CMP_TIER_STEPS=8" in row[1] for row in facts if row[0] == "settings"))
        self.assertTrue(any(row == ["command", f"{PLAIN} 300 (1 process)"] for row in facts), facts)
        path = self.folder() / "page.html"
        self.assert_ok(run("report", "--html", path, folder))
        shown = Page(path.read_text())
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        shown.check(self)

    def test_a_real_limit(self):
        """A program that runs ahead of the GPU is told what to set, by its summary, too."""
        path = self.folder() / "one.json"
        churn = [PROGRAMS.parent / "churn", "2", "400"]
        self.assert_ok(run("run", "--reserve", "1x", "--stats", path, "--", *churn))
        found = json.loads(path.read_text())
        process_counters = found["process"]
        self.assertEqual(process_counters["bound_waits"] > 0, process_counters["bound_wait_ns"] > 0)
        self.assertLessEqual(process_counters["bound_wait_ns"], process_counters["wait_ns"])
        result = run("run", "--reserve", "1x", "--stats", "1", "--", *churn)
        # What the limit gives back by real frees is its cost as well.
        (freed,) = re.findall(r"\ncmp:   real calls: .* frees in ([\d.]+) ms;", result.stderr)
        self.assertRegex(
            result.stderr,
            rf"\ncmp:   the bound took [\d.]+ ms in waits and {freed} ms in real frees: set a larger "
            "CMP_RESERVE, as 1.5x\\+1G ",
        )
        line = r"\ncmp:   on \S+, Simulated CUDA device, (driver [\d.]+, )?CUDA \d+\.\d; ran \d"
        self.assertRegex(result.stderr, line)


class Rounding(Written):
    def test_the_drivers_own(self):
        """Below 2 MiB in steps of 512 bytes, from there in steps of 2 MiB."""
        for size, taken in (
            (1, 512), (512, 512), (513, 1024), (4096, 4096), (2 * MIB - 1, 2 * MIB),
            (2 * MIB, 2 * MIB), (2 * MIB + 1, 4 * MIB), (5 * MIB, 6 * MIB),
        ):
            self.assertEqual(rounding.driver_bytes(size), taken, size)

    def test_the_pool_is_not_blamed_for_it(self):
        for row, expected in (
            # From 2 MiB up the pool adds nothing: 3 MiB take 4 either way.
            (tier(3 * MIB, 10, 30 * MIB, 40 * MIB), (30 * MIB, 10 * MIB, 0)),
            # A block of 256 bytes takes 512, with the pool or without.
            (tier(256, 10, 1000), (1000, 4120, 0)),
            # 257 KiB: the driver takes as much, the pool's block has 320.
            (tier(320 << 10, 4, 4 * (257 << 10)), (4 * (257 << 10), 0, 4 * (63 << 10))),
            # What passed the pool is the driver's alone.
            (tier(320 << 10, 4, 4 * 300_001, 4 * 300_001, real=4), (4 * 300_001, 4 * 31, 0)),
            (tier(4096, 0, 0), (0, 0, 0)),
        ):
            self.assertEqual(rounding.of_tier(row), expected, row)

    def test_a_trace_knows_each_size(self):
        """Ten of 520 bytes, ten of 768: both take 1024."""
        calls = [
            Call.of(i, 0, 1, "refill", 4096 * (i + 1), size)
            for i, size in enumerate([520] * 10 + [768] * 10 + [3 * MIB])
        ]
        found = self.collection(Trace(calls))
        small, large = map(rounding.of_tier, found.timeline.used_tiers())
        self.assertEqual(small, (12880, 20 * 1024 - 12880, 0))
        self.assertEqual(large, (3 * MIB, MIB, 0))

    def test_sizes_with_most_bytes(self):
        """Chosen by bytes; in the text by allocations and bytes; what is left out is counted."""
        tiers = [tier(256 * i, 1000 - i, (1000 - i) * 256 * i) for i in range(1, 61)]
        tiers.append(tier(1 << 30, 1, 1 << 30))
        one = process(1, tiers)
        shown = Page(self.page(one))
        bars = shown.figure("Bytes by block size, 20 of 61: those with most bytes")
        self.assertIn("1 GiB", bars)
        self.assertNotIn("256 B", bars)
        bars = shown.figure(
            "Allocations by block size: what served them, 20 of 61: those with most allocations"
        )
        self.assertNotIn("1 GiB", bars)
        self.assertIn("256 B", bars)
        said = text.report(self.collection(one), False)
        self.assertIn("\n1 GiB ", said)
        self.assertIn("\n… 41 more sizes, with fewer allocations and bytes (--all)\n", said)
        self.assertNotIn("… ", text.report(self.collection(one), True))


class Box:
    """Of a text in a plot, as a browser with a wide font (DejaVu Sans) would draw it."""

    EM = {**dict.fromkeys("il|'", 0.28), **dict.fromkeys(" .,:;ftrjI()/-", 0.41)}

    def __init__(self, element):
        self.text = element.text or ""
        size = float(element.get("font-size"))
        bold = 1.12 if element.get("font-weight") else 1
        wide = sum(self.EM.get(letter, 1.0 if letter in "mwMW@%" else 0.64) for letter in self.text)
        width, x, y = wide * size * bold, float(element.get("x")), float(element.get("y"))
        self.left = x - width * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
        self.right, self.top, self.bottom = self.left + width, y - 0.75 * size, y + 0.22 * size

    def overlaps(self, other):
        across = min(self.right, other.right) - max(self.left, other.left)
        along = min(self.bottom, other.bottom) - max(self.top, other.top)
        return across > 0.5 and along > 0.5


class Page(html.parser.HTMLParser):
    """A page's structure, figures and tables."""

    VOID = {"meta", "br"}

    def __init__(self, written):
        super().__init__()
        self.written = written
        self.open, self.outside, self.tables = [], [], []
        self.feed(written)
        found = re.findall(r"<svg .*?</svg>", written, re.S)
        self.figures = [xml.etree.ElementTree.fromstring(one) for one in found]
        self.titles = [one.get("aria-label") for one in self.figures]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("script", "link", "iframe", "img"):
            self.outside.append(tag)
        if tag == "table":
            self.tables.append([kind for _, kind in self.open] + [attributes.get("class", "")])
        if tag not in self.VOID:
            self.open.append((tag, attributes.get("class", "")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, tag

    def figure(self, title):
        """The texts of a figure."""
        return [one.text for one in self.figures[self.titles.index(title)].iter("text")]

    def check(self, test):
        """Is it whole, by itself, readable on a narrow screen, and does no text cover another?"""
        test.assertEqual((self.open, self.outside), ([], []))
        test.assertNotIn("http", self.written)
        test.assertIn('name="viewport" content="width=device-width', self.written)
        for kinds in self.tables:  # each scrolls by itself, or breaks its lines
            test.assertTrue("scroll" in kinds or "left facts" in kinds, kinds)
        rules = dict(re.findall(r"([^{}]+) \{ ([^}]*)\}", self.written.partition("</style>")[0]))
        test.assertIn("overflow-x: auto", rules["\n.scroll"])
        test.assertIn("linear-gradient", rules["\n.scroll"])
        test.assertIn("background: #999", rules["\n.scroll::-webkit-scrollbar-thumb"])
        for figure in self.figures:
            left, top, width, height = map(float, figure.get("viewBox").split())
            test.assertEqual((left, top), (0, 0))
            test.assertLess(width, NARROW_SCREEN)
            boxes = [Box(one) for one in figure.iter("text")]
            for box in boxes:
                where = f"{box.text!r} in {figure.get('aria-label')!r}"
                test.assertGreaterEqual(box.left, -1, where)
                test.assertLessEqual(box.right, width + 1, where)
                test.assertLessEqual(box.bottom, height + 1, where)
            for one, other in itertools.combinations(boxes, 2):
                test.assertFalse(
                    one.overlaps(other),
                    f"{one.text!r} and {other.text!r} in {figure.get('aria-label')!r}",
                )


def long_trace(calls=4000, nanoseconds=5 * 3600 * 10**9):
    """A few hours, sizes up to a GiB."""
    step = nanoseconds // calls
    kinds = ["refill", "thread_cache", "global_pool", "real"]
    return Trace(
        [
            Call.of(i * step, 10 ** (i % 9), 1, kinds[i % 4], 4096 * (i % 97 + 1), 1 << (i % 31))
            for i in range(calls)
        ]
    )


class Pages(Written):
    def test_one_process(self):
        shown = Page(self.page(process(1, wait_calls=3, wait_ns=10**9, wait_copies=3)))
        shown.check(self)
        self.assertEqual(len(shown.figures), 5)
        # Each axis has its name and unit.
        for title, unit in (
            ("Time in allocation, threads together", "milliseconds"),
            ("Peak memory", "KiB"),
            ("Why frees waited", "frees"),
            ("Bytes by block size", "KiB, all allocations together"),
            ("Allocations by block size: what served them", "allocations"),
        ):
            self.assertEqual(shown.figure(title)[-1], unit)

    def test_nothing_to_plot(self):
        """No axis without a bar, and no rate of nothing."""
        one = process(1, [tier(4096, 0, 0)], live_peak_bytes=0, reserved_peak_bytes=0)
        one["tiers"] = []
        shown = self.page(one)
        self.assertEqual(Page(shown).titles, [])
        self.assertNotIn("0.0%", shown)

    def test_ranks_on_two_hosts(self):
        shown = Page(self.page(*ranks(32, 2)))
        shown.check(self)
        title = "Peak memory, 20 of 32: those with most of it"
        self.assertIn("rank 31 n2", shown.figure(title))

    def test_long_names(self):
        everyone = ranks(3, 3)
        for one in everyone:
            one["program"] = "a_program_with_a_name_of_many_letters_" * 2
            one["run"].update(host="a-node-of-a-cluster-with-a-long-name-17.example.org")
            one["run"].update(rank=None, command="./x " + "y" * 900)
        shown = Page(self.page(*everyone))
        shown.check(self)
        # A name that takes most of a narrow screen does not stay there; a short one does.
        self.assertFalse(any("stay" in kinds[-1] for kinds in shown.tables[1:3]), shown.tables)
        shown = Page(self.page(*ranks(3, 1)))
        self.assertTrue(all("stay" in kinds[-1] for kinds in shown.tables[1:]), shown.tables)

    def test_large_numbers(self):
        huge = process(
            1,
            [tier(4096, 10**15, 10**15 << 12), tier(1 << 40, 10**6, 10**6 << 39)],
            live_peak_bytes=1 << 47,
            reserved_peak_bytes=1 << 48,
            real_malloc_ns=10**17,
            wait_calls=10**15,
            wait_ns=10**17,
            wait_copies=10**15,
        )
        Page(self.page(huge)).check(self)

    def test_a_long_trace(self):
        shown = Page(self.page(long_trace()))
        shown.check(self)
        title = "Memory over time: the most in each moment"
        self.assertEqual(shown.figure(title)[-1], "hours from the beginning")
        self.assertEqual(shown.figure("How long calls took")[-1], "µs")

    def test_an_empty_trace(self):
        written = self.page(Trace([]))
        shown = Page(written)
        shown.check(self)
        self.assertEqual(shown.figures, [])
        self.assertIn("No allocation and no free is in the trace.", written)

    def test_one_that_allocated_nothing(self):
        Page(self.page(process(1, [tier(4096, 0, 0)]))).check(self)

    def test_traces_beside_statistics(self):
        shown = Page(self.page(process(1), long_trace(100, 10**6)))
        shown.check(self)
        self.assertIn("Calls over time", shown.titles)
        self.assertIn("Peak memory", shown.titles)

    def test_many_traces(self):
        """What the text has no room for is counted."""
        found = self.collection(*(long_trace(4) for _ in range(25)))
        said = text.report(found, False)
        self.assertIn("\n… 5 more traces (--all)", said)

    def test_names_are_text(self):
        one = process(1, None, {"command": "<script>x", "host": "<b>h"})
        one["program"] = "<script>alert(1)</script>"
        written = self.page(one)
        self.assertNotIn("<script>", written)
        self.assertNotIn("<b>", written)
        Page(written).check(self)

    def test_a_page_of_ours_is_replaced(self):
        path = self.folder() / "page.html"
        for pid in (1, 2):
            page.write(str(path), self.collection(process(pid)), False)
        self.assertIn("solver 2", path.read_text())


class Drawing(TestCase):
    def test_numbers_of_an_axis(self):
        for most in (1, 3, 7.5, 99, 1234, 5_000_000, 123_456_789_012, 0.004):
            found = plots.ticks(most, 200)
            self.assertEqual(found[0], 0)
            self.assertGreater(len(found), 1, most)
            self.assertLessEqual(found[-1], most * (1 + 1e-9))
            self.assertLessEqual(len(found), 7)

    def test_names_keep_both_ends(self):
        self.assertEqual(drawing.shortened("short", 100), "short")
        cut = drawing.shortened("beginning_of_a_name_and_its_end", 100)
        self.assertRegex(cut, r"^beg\w*…\w*end$")
        self.assertLessEqual(drawing.text_width(cut), 100)


if __name__ == "__main__":
    main()
