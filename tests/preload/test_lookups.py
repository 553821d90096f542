"""The ways to a function: symbols, dlsym, cuGetProcAddress, the runtime's entry points."""

import itertools
import re

from preload import BUILD, PRELOAD, PROGRAMS, SIM, TestCase, interposed, main, run


class Asking(TestCase):
    def both(self, *args, plugins_in_doubt=()):
        without = run("lookups", args, preload=False)
        within = run("lookups", args)
        self.assert_ok(without)
        for plugin in plugins_in_doubt:
            pattern = rf".* by plugin {plugin}: .*\n"
            without.out = re.sub(pattern, "", without.out)
            within.out = re.sub(pattern, "", within.out)
        self.assertEqual(without.out, within.out, within.err)
        self.assertEqual(without.code, within.code, repr(within))
        self.assertEqual(without.err, within.err)
        return without, within


class WithoutCuda(Asking):
    """Who asks by the search order hears what is there without the shim."""

    def test_every_name(self):
        names = interposed()
        self.assertGreater(len(names), 30)
        without, within = self.both(*names)
        self.assertEqual(without.out.count("not found, "), 3 * len(names))
        self.assertIsNone(within.stats)

    def test_names_of_others(self):
        without, _ = self.both("dlsym", "getpid", "cuNothing", "cudaMallocHost", "", "c", "cu")
        self.assertIn("getpid by next: found", without.out)
        self.assertIn("cuNothing by default: not found", without.out)

    def test_libraries_without_cuda(self):
        for flags in ("local", "global"):
            without, _ = self.both(flags, PROGRAMS / "plugin_bare.so", "cudaMalloc", "cuMemFree_v2")
            self.assertEqual(without.out.count("plugin 0: nothing"), 2)

    def test_preloads_without_cuda(self):
        """One before ours asks for the next."""
        bare, wrapper = PROGRAMS / "plugin_bare.so", PROGRAMS / "wrapper.so"
        arguments = ["local", bare, "cudaFree", "cuMemFree_v2"]
        for others, answer in (([bare], "nothing"), ([bare, wrapper], "both")):
            without = run("lookups", arguments, preload=others)
            self.assertIn(f"cudaFree by plugin 0: {answer}\n", without.out)
            self.assertIn("cuMemFree_v2 by plugin 0: nothing\n", without.out)
            for place in range(1, len(others) + 1):
                order = [*others[:place], PRELOAD, *others[place:]]
                with self.subTest(order=order):
                    within = run("lookups", arguments, preload=order)
                    self.assertEqual(without.out, within.out, within.err)

    def test_weak_references(self):
        """The dynamic linker binds them to the shim's exports: a call says what is missing."""
        within = run("weak")
        self.assert_ok(within)
        self.assertEqual(within.err, "")
        self.assertIsNone(within.stats)
        self.assertIn("cudaGetDevice: not there\n", within.out)
        codes = dict(re.findall(r"(\w+): (\d+)\n", within.out))
        self.assertEqual(len(codes), 8, within.out)
        for name, code in codes.items():
            # cudaErrorSharedObjectSymbolNotFound, CUDA_ERROR_NOT_INITIALIZED
            self.assertEqual(code, "302" if name.startswith("cuda") else "3", name)


class SearchOrder(Asking):
    """With CUDA in the process: what is global is found, and is ours."""

    def test_global_runtime(self):
        for library in ("libcudart.so.13", PROGRAMS / "plugin.so"):
            # Once libcuda is in the process, local or not, a plugin's own question is in doubt.
            without, within = self.both(
                "global", library, "cudaMalloc", "cuMemAlloc_v2", plugins_in_doubt=[0]
            )
            self.assertIn("cudaMalloc by default: found", without.out)
            self.assertIn("cuMemAlloc_v2 by default: not found", without.out)
            self.assertIn("used, failed 0", without.out)
            self.assert_served(within, 40)

    def test_global_driver(self):
        without, _ = self.both("global", "libcuda.so.1", "cuMemAlloc_v2", "cudaMalloc")
        self.assertIn("cuMemAlloc_v2 by next: found", without.out)
        self.assertIn("cudaMalloc by next: not found", without.out)

    def test_local_libraries(self):
        """Theirs is what only their own library sees."""
        for library in ("libcudart.so.13", "libcuda.so.1", PROGRAMS / "plugin_static.so"):
            without, _ = self.both("local", library, "cudaMalloc", "cuMemAlloc_v2")
            self.assertEqual(without.out.count("not found, "), 6)
        without, _ = self.both("local", PROGRAMS / "plugin.so", "cudaMalloc", "cuMemAlloc_v2")
        self.assertEqual(without.out.count("not found, "), 6)
        self.assertIn("cudaMalloc by plugin 0: both", without.out)

    def test_another_local_library(self):
        """What was loaded together with it cannot be told: it may find ours as well."""
        self.both(
            *("local", PROGRAMS / "plugin.so", "local", PROGRAMS / "plugin_bare.so"),
            *("cudaMalloc", "cuMemAlloc_v2"),
            plugins_in_doubt=[1],
        )


class Driver(TestCase):
    def test_linked(self):
        without, within = self.run_both("driver_linked")
        self.assertIn("failed 0\n", without.results)
        self.assert_served(within, 90)

    def test_opened(self):
        """As language bindings do: dlopen of libcuda, local, and cuGetProcAddress of it."""
        for way in ("v2", "v1", "symbols"):
            with self.subTest(way=way):
                without, within = self.run_both("driver_opened", [way])
                self.assertIn("failed 0\n", without.results)
                self.assert_served(within, 90)

    def test_a_function_of_a_later_cuda(self):
        """Nobody has said what it does. It is left real, and said, once."""
        env = {"CMPSIM_DRIVER_VERSION": "98000"}
        without, within = self.run_both("driver_opened", ["later"], env)
        self.assertIn("of a later CUDA: 0\n", without.results)
        self.assert_served(within, 90)
        self.assertEqual(within.stats["later_functions"], ["cuOfALaterCuda"])
        said = run("driver_opened", ["later"], env=env | {"CMP_STATS": "1"}).err
        self.assertEqual(said.count("cmp:   cuOfALaterCuda of a later CUDA was looked up: "), 1)
        self.assertEqual(run("driver_opened", ["v2"], env=env).stats["later_functions"], [])

    def async_calls(self, program, preload):
        """Calls of each stream-ordered function, as the driver counted them."""
        report = self.temporary_folder() / "sim.txt"
        self.assert_ok(run(program, preload=preload, env={"CMPSIM_REPORT": report}))
        return [line for line in report.read_text().splitlines() if "Async" in line]

    def test_runtimes_entry_points(self):
        """Names, versions, streams and a missing status mean what they mean to the driver."""
        for program in ("entry_points", "entry_points_static"):
            with self.subTest(program=program):
                without, within = self.run_both(program)
                counts = [self.async_calls(program, preload) for preload in (False, True)]
                self.assertEqual(counts[0], counts[1])
                self.assertEqual(len(counts[0]), 4)  # alloc and free, per-thread streams and not
                self.assertIn("cuMemAlloc, version 2000, flags 0: 0, status 0, found", without.results)
                self.assertIn("alloc and free: 801", without.results)  # the 32-bit ABI stays itself
                self.assertIn("cuMemAllocAsync, version 3020, flags 0: 0, status 2", without.results)
                self.assertIn("cuMemAlloc, version 99000, flags 0: 1", without.results)
                self.assert_served(within, 200)


class Runtimes(TestCase):
    def test_three_runtimes(self):
        """Shared 13, shared 12, static: each frees what the others allocated."""
        plugins = ["plugin.so", "plugin_other.so", "plugin_static.so"]
        for order in itertools.permutations(plugins):
            with self.subTest(order=order):
                without, within = self.run_both("plugin_host", [PROGRAMS / name for name in order])
                self.assertIn("plugin 2: failed 0, last error 0", without.results)
                self.assertEqual(without.results.count("free 0, again 1, last error 1"), 18)
                self.assert_served(within, 140)

    def test_older_runtime(self):
        """One from before version 12 makes no device current until its next call: the memory is of
        the device that was set, also beside a newer runtime that is served at its entry points."""
        env = {"CMPSIM_DEVICES": "2", "LD_LIBRARY_PATH": f"{BUILD / 'sim-11'}:{SIM}"}
        for program, args in (
            ("wrong_device", []),
            ("wrong_device", [PROGRAMS / "plugin.so"]),
            ("wrong_device", [PROGRAMS / "plugin_static.so"]),
            ("wrong_device_renamed", []),
        ):
            with self.subTest(program=program, args=args):
                without, within = self.run_both(program, args, env)
                self.assertEqual(without.results.count("memory of device 1"), 9)
                self.assertEqual(without.results.count("memory of device 0"), 9)
                self.assert_served(within, 5)

    def test_closed_static_plugin(self):
        arguments = ["close-local", PROGRAMS / "plugin_static.so", PROGRAMS / "plugin.so"]
        without, within = self.run_both("plugin_host", arguments)
        self.assertEqual(without.results.count("failed 0\n"), 6)
        self.assert_served(within, 100)


class ComputeSanitizer(TestCase):
    def test_steps_aside(self):
        env = {"NV_SANITIZER_INJECTION_PORT_BASE": "30000"}
        for program, args in (("plain", []), ("plain_static", []), ("work", [3, 300, 7])):
            with self.subTest(program=program):
                without = run(program, args, preload=False, env=env)
                within = run(program, args, env=env)
                self.assert_ok(within)
                self.assertEqual(without.out, within.out)  # the counts of real calls included
                self.assertRegex(within.err, r"\Acmp: compute-sanitizer is attached[^\n]*\n\Z")
                self.assertEqual(within.stats["mode"], "off")

    def test_other_modes_say_nothing(self):
        env = {"NV_SANITIZER_INJECTION_PORT_BASE": "30000", "CMP_MODE": "off"}
        self.assertEqual(run("plain", env=env).err, "")


if __name__ == "__main__":
    main()
