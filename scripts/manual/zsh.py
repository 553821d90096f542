"""Completion for zsh."""

from __future__ import annotations

import re

from manual.description import Command, Flag

NAME = "_cmp-preload"

REST = {
    "program": ["'(-)1:program:_command_names -e'", "'*::arguments:_cmp-preload-program'"],
    "files": ["'*:file:_files'"],
    "file": ["'1:file:_files'"],
}


def quoted(text: str) -> str:
    """Between single quotes, inside of [...] of a specification."""
    text = re.sub(r"([\[\]:\\])", r"\\\1", text.replace("`", ""))
    return text.replace("'", "'\\''")


def value(flag: Flag) -> str:
    if not flag.value:
        return ""
    if flag.words and flag.file:
        words = " ".join(flag.words)
        action = f"{{_alternative \"words:word:({words})\" \"files:file:_files\"}}"
    elif flag.words:
        action = f"({' '.join(flag.words)})"
    else:
        action = {"file": "_files", "folder": "_files -/", "": " "}[flag.file]
    return f":{quoted(flag.value.lower())}:{action}"


def specifications(flag: Flag) -> list[str]:
    found = []
    for name in flag.names:
        others = "*" if flag.repeats else f"({' '.join(flag.names)})"
        equals = "=" if flag.value and name.startswith("--") else ""
        meaning = quoted(flag.meaning.split(";")[0] if flag.setting else flag.meaning)
        found.append(f"'{others}{name}{equals}[{meaning}]{value(flag)}'")
    return found


def script(commands: list[Command]) -> str:
    lines = [
        "#compdef cmp-preload",
        "# Written by scripts/generate-manual.",
        "",
        "_cmp-preload-program() {",
        "  if [[ $words[1] == -- ]]; then",
        "    shift words",
        "    ((CURRENT--))",
        "  fi",
        "  _normal",
        "}",
        "",
        "_cmp-preload() {",
        "  local context state state_descr line",
        "  typeset -A opt_args",
        "  _arguments -C -S \\",
        "    '--library[another libcmp_preload.so]:library:_files' \\",
        "    '(- *)--version[the version of the library]' \\",
        "    '(- *)'{-h,--help}'[the commands]' \\",
        "    '1:command:->command' '*::arguments:->arguments' && return",
        "  if [[ $state == command ]]; then",
        "    local -a commands=(",
    ]
    lines += [f"      '{command.name}:{quoted(command.meaning)}'" for command in commands]
    lines += ["    )", "    _describe command commands", "    return", "  fi", "  case $words[1] in"]
    for command in commands:
        parts = [part for flag in command.flags for part in specifications(flag)] + REST[command.rest]
        stop = "-A '-*' " if command.rest == "program" else ""
        lines.append(f"    {command.name})")
        lines.append(f"      _arguments -S {stop}\\")
        lines += [f"        {part} \\" for part in parts[:-1]] + [f"        {parts[-1]}", "      ;;"]
    lines += ["  esac", "}", "", '_cmp-preload "$@"', ""]
    return "\n".join(lines)
