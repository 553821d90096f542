"""Completion for bash. It works without the package bash-completion, and completes the program's own
arguments where that is loaded."""

from __future__ import annotations

from manual.description import Command, flags_with_value

NAME = "cmp-preload.bash"

BODY = r"""
# What may follow an option that takes a value: file, folder or nothing, and after it words; fails for
# an option that takes none.
_cmp_preload_value() {
  case $1 in
@VALUES@
    *) return 1 ;;
  esac
}

_cmp_preload() {
  local cur=${COMP_WORDS[COMP_CWORD]} at=1 before=${COMP_WORDS[COMP_CWORD - 1]} command word offer
  COMPREPLY=()
  if [[ $cur == = ]]; then  # bash takes --option=value apart
    cur=
  elif [[ $before == = ]]; then
    before=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  if [[ ${COMP_WORDS[1]} == --library ]]; then
    at=3
    ((COMP_CWORD == 2)) && _cmp_preload_files -f && return
  fi
  if ((COMP_CWORD == at)); then
    mapfile -t COMPREPLY < <(compgen -W "@COMMANDS@ --library --version --help" -- "$cur")
    return
  fi
  command=${COMP_WORDS[at]}
  # Past the options, to where the program stands.
  for ((++at; at < COMP_CWORD; ++at)); do
    word=${COMP_WORDS[at]}
    case $word in
      --) ((++at)); break ;;
      -*)
        if _cmp_preload_value "$word" >/dev/null; then
          [[ ${COMP_WORDS[at + 1]} == = ]] && ((++at))
          ((++at))
        fi
        ;;
      *) break ;;
    esac
  done
  if ((at > COMP_CWORD)); then
    offer=$(_cmp_preload_value "$before")
    case $offer in
      file*) _cmp_preload_files -f ;;
      folder*) _cmp_preload_files -d ;;
    esac
    mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "${offer#*:}" -- "$cur")
    return
  fi
  if ((at == COMP_CWORD)) && [[ $cur == -* && ${COMP_WORDS[at - 1]} != -- ]]; then
    case $command in
@FLAGS@
    esac
    mapfile -t COMPREPLY < <(compgen -W "$offer" -- "$cur")
    return
  fi
  case $command in
    @PROGRAMS@)
      if declare -F _command_offset >/dev/null; then
        _command_offset $at
      elif ((at == COMP_CWORD)); then
        _cmp_preload_files -c
        [[ $cur == */* ]] && _cmp_preload_files -f
      else
        _cmp_preload_files -f
      fi
      ;;
    *) _cmp_preload_files -f ;;
  esac
}

_cmp_preload_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

complete -F _cmp_preload cmp-preload
"""


def script(commands: list[Command]) -> str:
    values = [
        f'    {name}) echo "{flag.file}:{" ".join(flag.words)}" ;;'
        for name, flag in flags_with_value(commands).items()
    ]
    flags = [
        f'      {command.name}) offer="{" ".join(flag.names[-1] for flag in command.flags)}" ;;'
        for command in commands
    ]
    text = BODY.replace("@VALUES@", "\n".join(values)).replace("@FLAGS@", "\n".join(flags))
    text = text.replace("@COMMANDS@", " ".join(command.name for command in commands))
    programs = [command.name for command in commands if command.rest == "program"]
    return "# Written by scripts/generate-manual.\n" + text.replace("@PROGRAMS@", " | ".join(programs))
