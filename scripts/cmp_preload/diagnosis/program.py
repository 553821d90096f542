"""What doctor finds out about a program: can it be preloaded, and how does it come to CUDA."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess

from cmp_preload.console.documents import document
from cmp_preload.diagnosis.findings import Findings
from cmp_preload.pool import preloading, program_file

# Launchers: what to do instead of preloading into them.
LAUNCHERS = {
    "docker": "pass the preload into the container: docker run -e LD_PRELOAD=...",
    "podman": "pass the preload into the container: podman run -e LD_PRELOAD=...",
    "apptainer": "pass the preload into the container: apptainer exec --env LD_PRELOAD=...",
    "singularity": "pass the preload into the container: singularity exec --env LD_PRELOAD=...",
    "srun": "start it under the launcher: srun ... cmp-preload run -- ./app",
    "sbatch": "use cmp-preload in the job script: srun cmp-preload run -- ./app",
    "mpirun": "start it under the launcher: mpirun ... cmp-preload run -- ./app",
    "mpiexec": "start it under the launcher: mpiexec ... cmp-preload run -- ./app",
    "sudo": "sudo drops LD_PRELOAD: sudo cmp-preload run -- ./app",
}

# Python packages with an allocator of their own: what of them reaches the pool.
PACKAGES = {
    "torch": "PyTorch caches device memory itself and asks for it rarely: the pool gains little, "
    "unless PYTORCH_NO_CUDA_MEMORY_CACHING=1 turns that off",
    "cupy": "CuPy has a pool of its own: cupy.cuda.set_allocator(None) turns it off",
    "jax": "JAX allocates with cuMemCreate or takes most of the memory at once: out of reach",
    "tensorflow": "TensorFlow takes most of the memory at once: little to gain",
    "rmm": "RMM has pools of its own: use its plain cuda_memory_resource under this one",
}


# These start what stands in their arguments on this machine.
STARTERS = ("srun", "mpirun", "mpiexec", "sudo", "env", "nice", "nohup", "numactl", "setsid", "stdbuf")
STARTERS += ("taskset", "time", "timeout")

SHELL = re.compile(r"(bash|dash|sh|zsh|ksh)$")
INTERPRETERS = re.compile(r"(python|pypy|perl|bash|dash|sh)[\d.]*$")


def check_program(findings: Findings, command: list[str], environment: dict) -> None:
    """`command`: the program, and its arguments if they are given."""
    name, arguments = command[0], command[1:]
    path = program_file.find_program(name, environment.get("PATH"))
    if path is None:
        if not os.path.exists(name):
            findings.problem(f"there is no {name}", "give its path, as ./app")
        elif os.path.isdir(name):
            findings.problem(f"{name} is a folder", "give a program in it")
        elif not os.access(name, os.X_OK):
            findings.problem(f"{name} is not executable", "chmod +x, or give what runs it")
        else:
            findings.problem(f"{name} is not in PATH", f"give its path, as ./{name}")
        return
    base = os.path.basename(path)
    if base in LAUNCHERS:
        findings.note(
            f"{base} is a launcher", f"{LAUNCHERS[base]}; see {document('with/mpi-and-containers')}"
        )
    if base in STARTERS:
        started = started_by(arguments, environment)
        if started:
            check_program(findings, started, environment)
            return
    if base in LAUNCHERS:
        return
    reason = program_file.why_not_preloaded(path)
    if reason is not None:
        findings.problem(
            f"{path}: {reason}",
            (
                "run a copy without that, or rebuild it"
                if "set-" in reason or "capabilities" in reason
                else "only dynamically linked programs of this machine and glibc can be preloaded"
            ),
        )
        return
    words = program_file.script_interpreter(path)
    if words is not None:
        findings.ok(f"{path} is a script of {' '.join(words)}; what it starts is served")
        interpreter = words[-1] if os.path.basename(words[0]) == "env" else words[0]
        path = program_file.find_program(interpreter, environment.get("PATH")) or interpreter
        reason = program_file.why_not_preloaded(path)
        if reason is not None:
            findings.problem(f"{path}: {reason}", "use another interpreter")
            return
    if words is None and INTERPRETERS.match(os.path.basename(path)):
        check_script(findings, path, arguments)
    if re.match(r"python[\d.]*$", os.path.basename(path)):
        check_python(findings, path, environment)
    elif words is None and SHELL.match(os.path.basename(path)):
        findings.ok(f"{path} is a shell; what it starts is served")
    elif words is None:
        check_cuda_of(findings, path, command, environment)


def started_by(arguments: list[str], environment: dict) -> list[str]:
    """The command in the arguments of a launcher: from the first that is a program on."""
    for i, word in enumerate(arguments):
        if word[:1] != "-" and program_file.find_program(word, environment.get("PATH")):
            return arguments[i:]
    return []


def check_script(findings: Findings, interpreter: str, arguments: list[str]) -> None:
    """Is the script there that an interpreter is to run?"""
    takes_next = False
    for word in arguments:
        if takes_next:
            takes_next = False
        elif word[:1] != "-":
            if os.path.isfile(word):
                findings.ok(f"{os.path.basename(interpreter)} runs {word}")
            else:
                findings.problem(f"there is no script {word}", "give its path")
            return
        elif re.match(r"-[bBdEhiIOqsSuvVx]*[cme]", word) or word == "-":
            return  # a module, or a program in the arguments
        else:
            takes_next = word in ("-W", "-X", "-I", "-o", "-O")


def check_cuda_of(findings: Findings, path: str, command: list[str], environment: dict) -> None:
    """How the program comes to CUDA."""
    elf = program_file.read_elf(path)
    if elf is None:
        findings.note(f"{path} is not an ELF program")
        return
    libraries = linked_libraries(path, preloading.without_pool(environment))
    ways = 0
    for name, place in sorted(libraries.items()):
        if not re.match(r"lib(cudart|cuda)\.so", name):
            continue
        ways += 1
        if place is None:
            findings.problem(
                f"{path} needs {name}, which is not found",
                "add its folder to LD_LIBRARY_PATH, or install that CUDA version",
            )
        elif name.startswith("libcudart"):
            major = int((re.findall(r"\d+", name) or ["0"])[0])
            text = (
                f"uses the shared CUDA runtime {program_file.version_of_library(place)} ({place})"
            )
            if 0 < major < 12:
                findings.note(
                    text + ": older than 12", "served at the driver's level; all the same safe"
                )
            else:
                findings.ok(text)
        else:
            findings.ok(f"calls the CUDA driver directly ({place})")
    if program_file.links_static_runtime(path):
        ways += 1
        findings.ok(
            "holds the static CUDA runtime, or asks the driver for its functions itself: "
            "served at the driver's level"
        )
    missing = [
        name
        for name, place in libraries.items()
        if place is None and not re.match(r"lib(cudart|cuda)\.so", name)
    ]
    if missing:
        findings.problem(
            f"{path} needs libraries that are not found: {' '.join(sorted(missing))}",
            "set LD_LIBRARY_PATH, or activate the environment that it runs in",
        )
    with_runtime = sorted(
        name
        for name, place in libraries.items()
        if place
        and not name.startswith(("libcuda", "libc.", "libm."))
        and "nvidia" not in name
        and program_file.links_static_runtime(place)
    )
    if with_runtime:
        ways += 1
        findings.ok(f"libraries with a static CUDA runtime: {' '.join(with_runtime)}")
    if ways == 0:
        opens = program_file.contains(path, [b"libcudart.so", b"libcuda.so"])
        if opens:
            findings.ok(f"opens {' and '.join(text.decode() for text in opens)} itself")
        else:
            findings.note(
                f"{path} shows no use of CUDA; it may load it later, as a plugin",
                f"cmp-preload run --stats 1 -- {shlex.join(command)} tells whether it was reached",
            )


def linked_libraries(path: str, environment: dict) -> dict:
    """Every shared library that would be loaded at start: name to path, None if not found."""
    try:
        done = subprocess.run(
            ["ldd", path],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {
            name: ""
            for name in (program_file.read_elf(path) or program_file.Elf(64, 0, "", [])).needed
        }
    found = {}
    for name, place in re.findall(r"^\s*(\S+) => (not found|\S*/\S+)", done.stdout, re.M):
        found[name] = None if place == "not found" else place
    return found


def check_python(findings: Findings, python: str, environment: dict) -> None:
    code = (
        "import importlib.metadata as m, json\n"
        "there = reversed(list(m.distributions()))\n"  # what comes first is what is imported
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in there"
        " if d.metadata['Name']}))"
    )
    try:
        done = subprocess.run(
            [python, "-c", code],
            env=preloading.without_pool(environment),
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        packages = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        findings.note(f"{python} could not be asked about its packages")
        return
    findings.ok(f"{python}: Python is served through what it loads")
    caching = environment.get("PYTORCH_NO_CUDA_MEMORY_CACHING")
    for name, version in sorted(packages.items()):
        package = re.sub(r"[-_](cuda\d+x?|cu\d+)$", "", name)
        if package == "torch" and caching:
            findings.ok(
                f"torch {version}: its cache is off (PYTORCH_NO_CUDA_MEMORY_CACHING), "
                "the pool serves it"
            )
        elif package in PACKAGES:
            findings.note(f"{name} {version}", PACKAGES[package])
        elif re.match(r"nvidia-cuda-runtime", name):
            findings.ok(f"CUDA runtime {version} ({name})")
