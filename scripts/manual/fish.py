"""Completion for fish."""

from __future__ import annotations

from manual.description import Command, Flag

NAME = "cmp-preload.fish"

# What of the words until now is the command, or the program that one starts.
BODY = """# Written by scripts/generate-manual.

# The words before the cursor, without --library PATH and the name of this program.
function __cmp_preload_words
    set -l words (commandline -opc)
    set -e words[1]
    if test "$words[1]" = --library
        set -e words[1..2]
    end
    string join -- \\n $words
end

function __cmp_preload_needs_command
    set -l words (__cmp_preload_words)
    test (count $words) = 0
end

function __cmp_preload_using
    set -l words (__cmp_preload_words)
    test "$words[1]" = $argv[1]; and not __cmp_preload_program >/dev/null
end

# What stands after the options of a command that starts a program; fails if there is nothing yet.
function __cmp_preload_program
    set -l words (__cmp_preload_words)
    contains -- "$words[1]" @PROGRAMS@; or return 1
    set -e words[1]
    while set -q words[1]
        if test "$words[1]" = --
            set -e words[1]
            break
        else if contains -- "$words[1]" @TAKERS@
            set -e words[1]
            set -e words[1]
        else if string match -q -- '-*' "$words[1]"
            set -e words[1]
        else
            break
        end
    end
    set -q words[1]; or return 1
    string join -- \\n $words
    return 0  # that of string says whether there was more than one
end

function __cmp_preload_complete_program
    set -l words (__cmp_preload_program); or return
    complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end

complete -c cmp-preload -f
complete -c cmp-preload -n __cmp_preload_program -a '(__cmp_preload_complete_program)'
complete -c cmp-preload -n __cmp_preload_needs_command -l library -r -F -d 'another libcmp_preload.so'
complete -c cmp-preload -n __cmp_preload_needs_command -l version -d 'the version of the library'
complete -c cmp-preload -n __cmp_preload_needs_command -s h -l help -d 'the commands'
"""


def quoted(text: str) -> str:
    text = text.replace("`", "").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def line(command: Command, flag: Flag) -> str:
    parts = [f"complete -c cmp-preload -n '__cmp_preload_using {command.name}'"]
    for name in flag.names:
        parts.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    if flag.value:
        parts.append("-r" if flag.file else "-x")
    if flag.words:
        parts.append(f"-a {quoted(' '.join(flag.words))}")
    if flag.file == "file":
        parts.append("-F")
    if flag.file == "folder":
        parts.append("-a '(__fish_complete_directories)'")
    meaning = flag.meaning.split(";")[0] if flag.setting else flag.meaning
    return " ".join([*parts, "-d", quoted(meaning)])


def script(commands: list[Command]) -> str:
    programs = [command.name for command in commands if command.rest == "program"]
    takers = {name for command in commands for flag in command.flags if flag.value for name in flag.names}
    text = BODY.replace("@PROGRAMS@", " ".join(programs)).replace("@TAKERS@", " ".join(sorted(takers)))
    lines = []
    for command in commands:
        lines.append(
            f"complete -c cmp-preload -n __cmp_preload_needs_command -a {command.name} "
            f"-d {quoted(command.meaning)}"
        )
        if command.rest == "program":
            lines.append(
                f"complete -c cmp-preload -n '__cmp_preload_using {command.name}' "
                "-a '(__fish_complete_command)'"
            )
        else:
            lines.append(
                f"complete -c cmp-preload -n '__cmp_preload_using {command.name}' "
                "-a '(__fish_complete_path (commandline -ct))'"
            )
        lines += [line(command, flag) for flag in command.flags]
    return text + "\n".join(lines) + "\n"
