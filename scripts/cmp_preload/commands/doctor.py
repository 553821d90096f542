"""cmp-preload doctor: will it work here, for this program? Each finding with what to do."""

from __future__ import annotations

import shlex

from cmp_preload.console import words
from cmp_preload.console.arguments import Parser, add_command, own_command
from cmp_preload.diagnosis.driver import check_driver, check_service
from cmp_preload.diagnosis.findings import Findings
from cmp_preload.diagnosis.machine import check_environment, check_library, check_places
from cmp_preload.diagnosis.program import check_program
from cmp_preload.pool import preloading

ABOUT = """Looks at this machine and, if one is given, at a program; prints what it found and what
to do. The program is not started; its arguments tell which script an interpreter runs, and what a
launcher starts. Exit code 0: nothing stands in the way; 1: something does."""


def parser_of(_library=None) -> Parser:
    parser = Parser("doctor", ABOUT, "[--] [PROGRAM [ARGUMENT...]]")
    add_command(parser)
    return parser


def main(arguments: list[str], find_library) -> int:
    parsed = parser_of().parse(arguments)
    command = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    environment = preloading.own_environment()
    findings = Findings()
    library = check_library(findings, find_library)
    check_environment(findings, environment, library)
    check_places(findings, environment)
    driver = check_driver(findings, environment)
    if command:
        check_program(findings, command, environment)
    if library is not None and driver:
        check_service(findings, environment, library)
    print()
    if findings.problems:
        print(f"{words.count(findings.problems, 'problem')}: what to do stands behind each ->.")
        return 1
    tried = shlex.join(command) if command else "PROGRAM"
    print(f"Nothing stands in the way. Next: {own_command()} trial -- {tried}")
    return 0
