"""The library, and what surrounds a program on this machine."""

from __future__ import annotations

import os
import platform

from cmp_preload.console.documents import document
from cmp_preload.console.errors import Failure
from cmp_preload.diagnosis.findings import Findings


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
        preload = library.preload_path()
        if preload != library.path:
            findings.note(
                f"{library.path} has a space or colon in its path, where LD_PRELOAD is taken apart",
                f"cmp-preload uses a link; by hand: LD_PRELOAD={preload}",
            )
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
            elif meant := library.meant(name):
                findings.note(f"{name} is not a setting of the pool", meant)
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
                f"{document('with/neighbours')} says what to expect of which kind",
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
            f"see {document('with/mpi-and-containers')}",
        )
    if "SLURM_JOB_ID" in environment:
        findings.note(
            "this is a SLURM job", "start cmp-preload under srun: srun cmp-preload run -- ./app"
        )
