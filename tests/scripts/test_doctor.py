"""cmp-preload doctor: what it finds, and what it says to do."""

import ctypes
import os
import pathlib
import platform
import subprocess
import sys

from command import BUILD, COMMAND, PLAIN, PROGRAMS, TestCase, main, run


def set_numa_policy():
    """As numactl does, of this process and its children."""
    numbers = {"x86_64": 238, "aarch64": 237}  # of set_mempolicy
    nodes, bits = ctypes.c_ulong(1), ctypes.c_ulong(64)
    bind = 2
    number = numbers.get(platform.machine(), -1)
    if ctypes.CDLL(None).syscall(number, bind, ctypes.byref(nodes), bits) != 0:
        raise OSError


class Doctor(TestCase):
    def doctor(self, *arguments, env=None, code=0, cwd=None):
        result = run("doctor", *arguments, env=env, cwd=cwd)
        self.assert_ok(result, code)
        self.assertEqual(result.stderr, "")
        return result.stdout

    def test_all_is_well(self):
        said = self.doctor(PLAIN)
        self.assertIn(f"ok       {BUILD}/libcmp_preload.so, version ", said)
        self.assertIn("ok       driver for CUDA 13.0", said)
        self.assertIn("(simulated)", said)
        self.assertIn("ok       context events", said)
        self.assertIn(
            f"ok       uses the shared CUDA runtime 13 ({BUILD}/sim/libcudart.so.13)", said
        )
        self.assertIn("ok       a test of 100 allocations: 99 without a real call", said)
        self.assertNotIn("PROBLEM", said)
        self.assertIn(f"\n\nNothing stands in the way. Next: {COMMAND} trial -- {PLAIN}\n", said)

    def test_how_the_program_reaches_cuda(self):
        self.assertIn("holds the static CUDA runtime", self.doctor(PROGRAMS / "plain_static"))
        self.assertIn("calls the CUDA driver directly", self.doctor(PROGRAMS / "driver_linked"))
        self.assertIn(
            "asks the driver for its functions itself", self.doctor(PROGRAMS / "driver_opened")
        )
        self.assertIn("shows no use of CUDA", self.doctor("sleep"))
        self.assertIn(
            "-> cmp-preload run --stats 1 -- sleep 'a b' tells whether it was reached\n",
            self.doctor("sleep", "a b"),
        )
        said = self.doctor("sh", self.script("true"))
        self.assertRegex(said, r"ok +\S*/(da|ba)?sh is a shell; what it starts is served\n")
        self.assertIn("Python is served", self.doctor(sys.executable))
        self.assertIn("is a script of /bin/sh", self.doctor(self.script("true")))
        python = self.folder() / "app.py"
        python.write_text(f"#!{sys.executable}\n")
        python.chmod(0o755)
        self.assertIn("Python is served", self.doctor(python))

    def test_python_packages(self):
        folder, behind = self.folder() / "first", self.folder() / "behind"
        for where, version in ((folder, "9.1"), (behind, "8.0")):
            for name in ("torch", "cupy_cuda13x", "nvidia_cuda_runtime"):
                information = where / f"{name}-{version}.dist-info"
                information.mkdir(parents=True)
                (information / "METADATA").write_text(
                    f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
                )
        folder = f"{folder}:{behind}"  # what is imported is the first
        said = self.doctor(sys.executable, env={"PYTHONPATH": folder})
        self.assertIn("PYTORCH_NO_CUDA_MEMORY_CACHING=1", said)
        self.assertIn("cupy.cuda.set_allocator(None)", said)
        self.assertIn("ok       CUDA runtime 9.1 (nvidia-cuda-runtime)", said)
        said = self.doctor(
            sys.executable, env={"PYTHONPATH": folder, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        )
        self.assertIn("ok       torch 9.1: its cache is off", said)

    def test_no_driver(self):
        said = self.doctor(env=self.without_driver(), code=1)
        self.assertIn("PROBLEM  no CUDA driver", said)
        self.assertIn("->", said)

    def test_no_device(self):
        said = self.doctor(env={"CMPSIM_DEVICES": "0"}, code=1)
        self.assertIn("PROBLEM  no device", said)
        self.assertIn("nvidia-smi", said)

    def test_driver_that_crashes(self):
        folder = self.folder()
        source = "#include <stdlib.h>\nint cuDriverGetVersion(int *v) { (void)v; abort(); }\n"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", folder / "libcuda.so.1"],
            input=source,
            text=True,
            check=True,
        )
        self.assertIn("crashes or hangs", self.doctor(env={"LD_LIBRARY_PATH": folder}, code=1))

    def test_old_driver(self):
        said = self.doctor(
            env={
                "LD_LIBRARY_PATH": BUILD / "sim-old",
                "CMPSIM_DRIVER_VERSION": "12040",
                "CMPSIM_CONTEXT_EVENTS": "0",
            }
        )
        self.assertIn("note     no context events", said)
        self.assertIn("without a real call", said)

    def test_allocations_that_are_not_served(self):
        said = self.doctor(env={"CMPSIM_FAIL": "cuMemAlloc_v2:1+:2"}, code=1)
        self.assertIn("PROBLEM  a test of 100 allocations under the pool failed: error 2", said)

    def test_a_pool_that_steps_aside(self):
        """A tool's preload allocates as soon as it is loaded, another one wraps what it calls."""
        allocates = self.folder() / "allocates.so"
        source = """
            int cudaMalloc(void **, unsigned long), cudaFree(void *);
            __attribute__((constructor)) void allocate(void) {
              void *memory = 0;
              if (cudaMalloc(&memory, 4096) == 0) cudaFree(memory);
            }
        """
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", allocates, f"-L{BUILD}/sim", "-lcudart"],
            input=source,
            text=True,
            check=True,
        )
        none = "PROBLEM  a test of 100 allocations ran, but the pool served none: "
        wrapper = PROGRAMS / "wrapper.so"
        said = self.doctor(env={"LD_PRELOAD": f"{wrapper}:{allocates}"}, code=1)
        self.assertIn(f"{none}{wrapper} wraps cudaMalloc behind libcmp_preload.so; name it first", said)
        self.assertIn("-> another preload may stand before it: see LD_PRELOAD above\n", said)
        said = self.doctor(env={"CMP_MAX_BLOCK": "1K"}, code=1)
        self.assertIn(f"{none}every one was a real call\n", said)

    def test_programs_that_cannot_be_served(self):
        self.assertIn("there is no no-such-program", self.doctor("no-such-program", code=1))
        self.assertIn("/etc/passwd is not executable", self.doctor("/etc/passwd", code=1))
        folder = self.folder()
        self.assertIn("is a folder", self.doctor(folder, code=1))
        for name, at, value, words in (
            ("other", 18, b"\x16\x00", "another machine"),
            ("small", 4, b"\x01", "another machine"),
        ):
            data = bytearray(pathlib.Path(PLAIN).read_bytes())
            data[at : at + len(value)] = value
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o755)
            said = self.doctor(folder / name, code=1)
            self.assertIn(f"PROBLEM  {folder / name}: ", said)
            self.assertIn(words, said)
        (folder / "damaged").write_bytes(pathlib.Path(PLAIN).read_bytes()[:100])
        (folder / "damaged").chmod(0o755)
        self.assertIn("not an ELF program", self.doctor(folder / "damaged"))

    def test_libraries_that_are_not_found(self):
        program = self.folder() / "app"
        for library, needed in (
            ("libcudart.so.99", "needs libcudart.so.99, which is not found"),
            ("libstrange.so.1", "libraries that are not found: libstrange.so.1"),
        ):
            folder = self.folder()
            subprocess.run(
                ["cc", "-shared", "-x", "c", "-", "-Wl,-soname," + library, "-o", folder / library],
                input="int f(void) { return 0; }",
                text=True,
                check=True,
            )
            subprocess.run(
                ["cc", "-x", "c", "-", "-x", "none", folder / library, "-o", program],
                input="int f(void); int main(void) { return f(); }",
                text=True,
                check=True,
            )
            self.assertIn(needed, self.doctor(program, code=1))
        self.assertIn("LD_LIBRARY_PATH", self.doctor(program, code=1))

    def test_launchers(self):
        folder = self.folder()
        for name in ("srun", "docker", "mpirun"):
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
            said = self.doctor(name, env={"PATH": f"{folder}:{os.environ['PATH']}"})
            self.assertIn(f"{name} is a launcher", said)

    def test_with_arguments(self):
        """Whether the script of an interpreter is there, and what a launcher starts."""
        folder = self.folder()
        (folder / "train.py").write_text("")
        python = sys.executable
        name = os.path.basename(python)
        here = {"cwd": folder}
        said = self.doctor("--", python, "-u", "-W", "ignore", "train.py", "--steps", "5", **here)
        self.assertIn(f"ok       {name} runs train.py", said)
        said = self.doctor("--", python, "trian.py", code=1, **here)
        self.assertIn("PROBLEM  there is no script trian.py", said)
        for arguments in (("-m", "json.tool"), ("-c", "pass", "x"), ()):
            self.assertNotIn(f"{name} runs", self.doctor("--", python, *arguments, **here))
        self.assertIn("uses the shared CUDA runtime", self.doctor("--", PLAIN, "100", "--steps"))
        (folder / "mpirun").write_text("#!/bin/sh\n")
        (folder / "mpirun").chmod(0o755)
        path = {"PATH": f"{folder}:{os.environ['PATH']}"}
        said = self.doctor("--", "mpirun", "-n", "4", PLAIN, "100", env=path)
        self.assertIn("mpirun is a launcher", said)
        self.assertIn("uses the shared CUDA runtime", said)
        said = self.doctor("env", "A=b", "nice", "-n", "5", python, "trian.py", code=1, **here)
        self.assertIn("PROBLEM  there is no script trian.py", said)

    def test_surroundings(self):
        keeps = "ok       stream-ordered pools (cudaMallocAsync) keep memory: CMP_ASYNC_KEEP="
        self.assertIn(f"{keeps}auto\n", self.doctor())
        self.assertIn(f"{keeps}64M\n", self.doctor(env={"CMP_ASYNC_KEEP": "64M"}))
        said = self.doctor(env={"CMP_ASYNC_KEEP": "off"})
        self.assertIn("note     CMP_ASYNC_KEEP=off is set: every program", said)
        self.assertIn("(cudaMallocAsync) keep no memory: CMP_ASYNC_KEEP=off\n", said)
        said = self.doctor(env={"CMPSIM_FAIL": "cuMemAllocAsync:1+:801"})
        self.assertIn("note     this device has no stream-ordered pools (cudaMallocAsync)\n", said)
        kept = "page-locked memory (cudaMallocHost) is"
        self.assertNotIn(kept, self.doctor())
        self.assertIn(f"ok       {kept} kept: CMP_HOST=on\n", self.doctor(env={"CMP_HOST": "on"}))
        self.assertNotIn(kept, self.doctor(env={"CMP_HOST": "off"}))
        said = self.doctor(env={"CMP_SLACK": "half", "CMP_FILL": "zero"}, code=1)
        self.assertIn("PROBLEM  CMP_SLACK=half is not understood", said)
        self.assertIn("right: a percentage, as 12.5%", said)
        self.assertIn("note     CMP_FILL=zero is set", said)
        said = self.doctor(env={"CMP_RESRVE": "1x", "CMP_BUILD": "x"})
        self.assertIn("note     CMP_RESRVE is not a setting of the pool\n", said)
        self.assertIn("did you mean CMP_RESERVE?", said)
        self.assertNotIn("CMP_BUILD", said)
        for name, value in (("CMP_FREE", "wait"), ("CMP_BATCH", "8"), ("CMP_LIMIT", "1G")):
            env = {name: value}  # as the library says it
            warned = run("run", "--", PLAIN, "1", env=env).stderr
            self.assertRegex(warned, f"cmp: unknown option {name}; ")
            meant = warned.split("; ")[1]
            self.assertIn(f"note     {name} is not a setting of the pool\n", self.doctor(env=env))
            self.assertIn(f"-> {meant}", self.doctor(env=env))
        wrapper = BUILD / "programs" / "wrapper.so"
        self.assertIn(
            f"another preload stays, behind the pool: {wrapper}",
            self.doctor(env={"LD_PRELOAD": wrapper}),
        )
        self.assertIn("this is a SLURM job", self.doctor(env={"SLURM_JOB_ID": "7"}))
        self.assertIn("container (apptainer)", self.doctor(env={"APPTAINER_NAME": "x.sif"}))
        self.assertIn(
            "compute-sanitizer is attached",
            self.doctor(env={"NV_SANITIZER_INJECTION_PORT_BASE": "1"}, code=1),
        )
        said = run("doctor", env={"LD_PRELOAD": "/nowhere/lib.so"}).stdout
        self.assertIn("PROBLEM  the preload /nowhere/lib.so is not there", said)


    def test_numa_policy(self):
        try:
            said = run("doctor", env={"CMP_HOST": "on"}, preexec_fn=set_numa_policy).stdout
        except subprocess.SubprocessError:
            self.skipTest("this system lets nobody set a policy")
        self.assertIn("is not kept in spite of CMP_HOST=on: there is a NUMA policy", said)


if __name__ == "__main__":
    main()
