"""cmp-preload doctor: will it work here, for this program? Each finding with what to do."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile

from cmp_preload.pool import preloading
from cmp_preload.records import counters, statistics
from cmp_preload.console.arguments import Parser
from cmp_preload.console.errors import Failure
from cmp_preload.doctor_program import check_program
from cmp_preload.findings import Findings

ABOUT = """Looks at this machine and, if one is given, at a program; prints what it found and what
to do. Exit code 0: nothing stands in the way; 1: something does."""


def main(arguments: list[str], find_library) -> int:
    parser = Parser(
        prog="cmp-preload doctor",
        description=ABOUT,
        usage="cmp-preload doctor [OPTION...] [PROGRAM]",
    )
    parser.add_argument("program", nargs="?", metavar="PROGRAM")
    parsed = parser.parse(arguments)
    environment = preloading.own_environment()
    findings = Findings()
    library = check_library(findings, find_library)
    check_environment(findings, environment, library)
    check_places(findings, environment)
    driver = check_driver(findings, environment)
    if parsed.program is not None:
        check_program(findings, parsed.program, environment)
    if library is not None and driver:
        check_service(findings, environment, library)
    return 1 if findings.problems else 0


def check_library(findings: Findings, find_library):
    try:
        library = find_library()
        version = library.version()
    except Failure as failure:
        findings.problem(str(failure), "build it for this machine, or give --library PATH")
        return None
    findings.ok(
        f"{library.path}, version {version}, "
        f"{platform.machine()}, {' '.join(platform.libc_ver())}"
    )
    try:
        library.preload_path()
    except Failure as failure:
        findings.problem(f"{library.path} has a space or colon in its path", str(failure))
    return library


def check_environment(findings: Findings, environment: dict, library) -> None:
    if library is not None:
        options = {option.name: option for option in library.options()}
        for name, value in sorted(environment.items()):
            option = options.get(name)
            if option is not None and value and not library.is_right(name, value):
                findings.problem(
                    f"{name}={value} is not understood; the default is used",
                    f"right: {option.values}",
                )
            elif option is not None:
                findings.note(f"{name}={value} is set: every program that is preloaded takes it")
    preloads = environment.get("LD_PRELOAD", "").replace(":", " ").split()
    try:
        with open("/etc/ld.so.preload", encoding="utf-8") as file:
            preloads += file.read().split()
    except OSError:
        pass
    for preload in preloads:
        name = os.path.basename(preload)
        if "/" in preload and not os.path.exists(preload):
            findings.problem(
                f"the preload {preload} is not there: the dynamic linker complains in every "
                "program",
                "correct or unset LD_PRELOAD",
            )
        elif name.startswith("libcmp_preload"):
            findings.note(
                f"the pool is preloaded here already: {preload}",
                "cmp-preload run replaces it; other programs of this shell are served too",
            )
        elif "asan" in name or "tsan" in name:
            findings.note(
                f"the preload {preload} must come first; cmp-preload run puts the pool first",
                "for sanitizers set LD_PRELOAD by hand: the sanitizer, then the pool",
            )
        else:
            findings.note(
                f"another preload stays, behind the pool: {preload}",
                "scripts/docs/neighbours.md says what to expect of which kind",
            )
    if environment.get("LD_AUDIT"):
        findings.note("LD_AUDIT is set: an auditor may bind symbols past the pool")
    if environment.get("NV_SANITIZER_INJECTION_PORT_BASE"):
        findings.note(
            "compute-sanitizer is attached: every call is real, so that it sees all errors"
        )


def check_places(findings: Findings, environment: dict) -> None:
    inside = next(
        (
            name
            for name, shows in (
                ("apptainer", "APPTAINER_NAME" in environment or "SINGULARITY_NAME" in environment),
                ("docker", os.path.exists("/.dockerenv")),
                ("podman", os.path.exists("/run/.containerenv")),
            )
            if shows
        ),
        None,
    )
    if inside is not None:
        findings.note(
            f"this is a container ({inside}): it sees its own files and processes alone",
            "see scripts/README.md, Containers",
        )
    if "SLURM_JOB_ID" in environment:
        findings.note(
            "this is a SLURM job", "start cmp-preload under srun: srun cmp-preload run -- ./app"
        )


def _probe(environment: dict) -> dict | None:
    """What probe.py found; None if it crashed or hung."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")
    try:
        done = subprocess.run(
            [sys.executable, script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
        # Other preloads may write, too.
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(b"{")))
    except (OSError, ValueError, StopIteration, subprocess.TimeoutExpired):
        return None


def check_driver(findings: Findings, environment: dict) -> bool:
    """True if there is a device to allocate on."""
    found = _probe(preloading.without_pool(environment))
    if found is None:
        findings.problem(
            "the driver (libcuda.so.1) crashes or hangs when it is asked", "try nvidia-smi"
        )
        return False
    if "missing" in found:
        device_nodes = os.path.exists("/dev/nvidiactl") or os.path.exists(
            "/proc/driver/nvidia/version"
        )
        findings.problem(
            f"no CUDA driver: {found['missing']}",
            (
                "the GPU is there but its driver library is not: in a container start it with "
                "--gpus all (docker) or --nv (apptainer)"
                if device_nodes
                else "run this on a machine with an NVIDIA GPU and its driver"
            ),
        )
        return False
    version = f"{found['version'] // 1000}.{found['version'] % 1000 // 10}"
    what = f"driver for CUDA {version}{_kernel_module()}" + (
        " (simulated)" if found["simulated"] else ""
    )
    if found["version"] < 12000:
        findings.note(f"{what}: older than the pool was tested with", "12.0 or later is better")
    else:
        findings.ok(what)
    if found["context_events"]:
        findings.ok("context events: frees are followed up without waiting")
    else:
        findings.note(
            "no context events (driver before CUDA 12.5): the pool waits once per batch of frees",
            "a driver of CUDA 12.5 or later gains more",
        )
    if found["error"] or not found["devices"]:
        findings.problem(
            f"no device: cuInit or cuDeviceGetCount says {found['error']}",
            "see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it "
            f"(now: {environment.get('CUDA_VISIBLE_DEVICES', 'not set')})",
        )
        return False
    names = found["devices"]
    findings.ok(", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names))))
    return True


def _kernel_module() -> str:
    try:
        with open("/proc/driver/nvidia/version", encoding="ascii", errors="replace") as file:
            match = re.search(r"\s(\d+\.[\d.]+)\s", file.read())
            return f", {match.group(1)}" if match else ""
    except OSError:
        return ""


def check_service(findings: Findings, environment: dict, library) -> None:
    """The proof: a process allocates under the pool, and the statistics say what happened."""
    with tempfile.TemporaryDirectory(prefix="cmp-preload-") as folder:
        path = os.path.join(folder, "stats.json")
        try:
            preload = library.preload_path(folder)
        except Failure:
            return  # told already
        pool = {"CMP_MODE": "pool", "CMP_PROGRAMS": "all", "CMP_STATS": preloading.literal(path)}
        found = _probe(preloading.with_pool(environment, preload, pool))
        try:
            counted = statistics.read(path, lambda: library)
        except Failure:
            counted = {"reached": False, "reason": "no statistics were written"}
    if found is None or found.get("allocated") != 0:
        error = "it crashed" if found is None else f"error {found.get('allocated')}"
        findings.problem(
            f"a test of 100 allocations under the pool failed: {error}",
            "please report it, with the output of this command",
        )
    elif not counted["reached"] or counters.hits(counted["totals"]) == 0:
        findings.problem(
            "a test of 100 allocations ran, but the pool served none: "
            + (counted.get("aside") or counted.get("reason", "every one was a real call")),
            "another preload may stand before it: see LD_PRELOAD above",
        )
    else:
        findings.ok(
            f"a test of 100 allocations: {counters.hits(counted['totals'])} without a real call"
        )
