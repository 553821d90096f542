"""The manual page cmp-preload(1)."""

from __future__ import annotations

import re

from cmp_preload.pool.library import Library
from manual.description import Command, Flag

NAME = "cmp-preload.1.in"  # CMake writes the version into it

EXITS = """0 if it went well, 1 if not, 2 if it was called wrongly; 127 and 126 say that there is no such
program, or none that can be started. \\fBrun\\fR becomes the program, and so ends with its exit code.
\\fBtrial\\fR ends with 1 where results differ, \\fBdoctor\\fR where something stands in the way."""


def plain(text: str) -> str:
    """As it stands, for the formatter."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.splitlines())


def synopsis(arguments: str) -> str:
    return re.sub(r"[A-Z]{3,}", r"\\fI\g<0>\\fR", plain(arguments))


def tagged(tag: str, text: str) -> list[str]:
    return [".TP", tag, text]


def flag_tag(flag: Flag) -> str:
    names = ", ".join(f"\\fB{plain(name)}\\fR" for name in flag.names)
    return f"{names} \\fI{plain(flag.value)}\\fR" if flag.value else names


def settings_of(command: Command, library: Library) -> str:
    """Which settings it takes, in a sentence."""
    there = {flag.setting for flag in command.flags if flag.setting}
    without = [option.flag for option in library.options() if option.name not in there]
    if not there:
        return ""
    but = ", ".join(f"\\fB{plain(flag)}\\fR" for flag in without)
    return "And the settings of the pool, below" + (f", but not {but}." if without else ".")


def page(commands: list[Command], library: Library) -> str:
    lines = [
        '.\\" Written by scripts/generate-manual.',
        '.TH CMP\\-PRELOAD 1 "" "cmp @PROJECT_VERSION@"',
        ".SH NAME",
        "cmp\\-preload \\- a CUDA memory pool under programs that were never written for one",
        ".SH SYNOPSIS",
        "\\fBcmp\\-preload\\fR [\\fB\\-\\-library\\fR \\fIPATH\\fR] \\fICOMMAND\\fR ...",
    ]
    for command in commands:
        lines += [".br", f"\\fBcmp\\-preload {command.name}\\fR {synopsis(command.arguments)}"]
    lines += [
        ".SH DESCRIPTION",
        "Puts libcmp_preload.so under a program, and tells what that does for it. The library serves",
        "the cudaMalloc and cudaFree of a program that is neither changed nor rebuilt.",
        *tagged("\\fB\\-\\-library\\fR \\fIPATH\\fR", "Another libcmp_preload.so than the one that it came with."),
        *tagged("\\fB\\-\\-version\\fR", "The version of the library."),
        *tagged("\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "The commands; after a command, its options."),
        ".SH COMMANDS",
    ]
    for command in commands:
        lines += [f".SS {command.name}: {plain(command.meaning)}"]
        lines += [plain(command.about).replace("\n\n", "\n.PP\n")]
        for flag in command.own:
            if "--help" not in flag.names:
                lines += tagged(flag_tag(flag), plain(flag.meaning))
        told = settings_of(command, library)
        lines += [".PP", told] if told else []
    lines += [
        ".SH SETTINGS",
        "Each is an option of the commands above, and an environment variable of every program that the",
        "library is preloaded into.",
    ]
    for option in library.options():
        text = f"{option.values}; {option.meaning} (default: {option.default})"
        lines += tagged(f"\\fB{plain(option.flag)}\\fR \\fIVALUE\\fR, \\fB{option.name}\\fR", plain(text))
    lines += [".SH EXIT STATUS", EXITS, ".SH SEE ALSO", "\\fBld.so\\fR(8)", ""]
    return "\n".join(lines)
