# Written by scripts/generate-manual.

# What may follow an option that takes a value: file, folder or nothing, and after it words; fails for
# an option that takes none.
_cmp_preload_value() {
  case $1 in
    -n) echo ":" ;;
    --runs) echo ":" ;;
    --stdin) echo "file:" ;;
    --modes) echo ":wait auto order none" ;;
    --shake) echo ":" ;;
    --ignore) echo ":" ;;
    --tolerance) echo ":" ;;
    --file) echo "file:" ;;
    --code) echo ":" ;;
    --limit) echo ":" ;;
    --save) echo "file:" ;;
    --programs) echo ":" ;;
    --max-block) echo ":auto" ;;
    --tier-steps) echo ":1 2 4 8 16" ;;
    --thread-cache-max-block) echo ":" ;;
    --thread-cache-bytes) echo ":" ;;
    --batch-bytes) echo ":" ;;
    --slack) echo ":" ;;
    --reserve) echo ":auto" ;;
    --decay) echo ":oncall off" ;;
    --async-keep) echo ":auto off" ;;
    --host) echo ":off on" ;;
    --fill) echo ":off zero" ;;
    --trace) echo "file:off" ;;
    --verbose) echo ":off on" ;;
    --reports) echo "folder:" ;;
    --settings) echo "file:" ;;
    --mode) echo ":pool observe off" ;;
    --free-sync) echo ":wait auto order none" ;;
    --stats) echo "file:off on" ;;
    --html) echo "file:" ;;
    --kind) echo ":order host" ;;
    --unshaken) echo ":" ;;
    --seed) echo ":" ;;
    --backend) echo ":real pool async all" ;;
    --order) echo ":start call thread" ;;
    --csv) echo "file:" ;;
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
    mapfile -t COMPREPLY < <(compgen -W "doctor trial run report tune shake replay --library --version --help" -- "$cur")
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
      doctor) offer="--help" ;;
      trial) offer="--help --runs --stdin --tee --modes --no-fill --shake --ignore --tolerance --stderr --file --code --limit --save --json --programs --max-block --tier-steps --thread-cache-max-block --thread-cache-bytes --batch-bytes --slack --reserve --decay --async-keep --host --fill --trace --verbose" ;;
      run) offer="--help --reports --settings --mode --programs --max-block --tier-steps --thread-cache-max-block --thread-cache-bytes --batch-bytes --slack --reserve --decay --async-keep --free-sync --host --fill --stats --trace --verbose" ;;
      report) offer="--help --html --json --all" ;;
      tune) offer="--help --runs --stdin --tee --programs --max-block --tier-steps --thread-cache-max-block --thread-cache-bytes --batch-bytes --slack --reserve --decay --async-keep --free-sync --host --fill --verbose" ;;
      shake) offer="--help --runs --stdin --tee --kind --unshaken --seed --ignore --tolerance --stderr --file --code --limit --json --programs --max-block --tier-steps --thread-cache-max-block --thread-cache-bytes --batch-bytes --slack --reserve --decay --async-keep --host --fill --trace --verbose" ;;
      replay) offer="--help --backend --order --json --csv --programs --max-block --tier-steps --thread-cache-max-block --thread-cache-bytes --batch-bytes --slack --reserve --decay --async-keep --free-sync --host --fill --verbose" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$offer" -- "$cur")
    return
  fi
  case $command in
    doctor | trial | run | tune | shake)
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
