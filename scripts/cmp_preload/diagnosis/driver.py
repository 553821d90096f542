"""The driver, and whether a test allocation is served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile

from cmp_preload.console.documents import document
from cmp_preload.console.errors import Failure
from cmp_preload.diagnosis.findings import Findings
from cmp_preload.pool import preloading
from cmp_preload.records import counters, statistics


SIMULATED = "These runs were on the simulated CUDA: their times say nothing about a GPU."


def _probe(environment: dict, *arguments: str) -> dict | None:
    """What probe.py found; None if it crashed or hung."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")
    try:
        done = subprocess.run(
            [sys.executable, "-IS", script, *arguments],
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


def is_simulated(environment: dict) -> bool:
    """Is the driver that a program finds in this environment the simulated one?"""
    found = _probe(preloading.without_pool(environment), "kind")
    return found is not None and found.get("simulated", False)


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
        findings.ok("context events: the pool knows without a wait when freed memory may be used again")
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
        _tell_of_kept_pools(findings, environment, found, counted["process"])
        _tell_of_page_locked(findings, environment, counted["process"])


def _tell_of_kept_pools(findings: Findings, environment: dict, found: dict, process: dict) -> None:
    setting = f"CMP_ASYNC_KEEP={environment.get('CMP_ASYNC_KEEP') or 'auto'}"
    if process.get("kept_pools"):
        findings.ok(f"stream-ordered pools (cudaMallocAsync) keep memory: {setting}")
    elif found.get("in_order"):
        findings.note(
            f"stream-ordered pools (cudaMallocAsync) keep no memory: {setting}",
            "" if environment.get("CMP_ASYNC_KEEP") else "they do not while little is free",
        )
    else:
        findings.note("this device has no stream-ordered pools (cudaMallocAsync)")


def _tell_of_page_locked(findings: Findings, environment: dict, process: dict) -> None:
    """Where somebody asked for it to be kept."""
    setting = f"CMP_HOST={environment.get('CMP_HOST')}"
    if process.get("host_bypassed"):
        findings.note(
            f"page-locked memory (cudaMallocHost) is not kept in spite of {setting}: there is a "
            "NUMA policy, as of numactl",
            f"{document('page-locked')} says why",
        )
    elif process.get("host_requests"):
        findings.ok(f"page-locked memory (cudaMallocHost) is kept: {setting}")
