# Written by scripts/generate-manual.

# The words before the cursor, without --library PATH and the name of this program.
function __cmp_preload_words
    set -l words (commandline -opc)
    set -e words[1]
    if test "$words[1]" = --library
        set -e words[1..2]
    end
    string join -- \n $words
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
    contains -- "$words[1]" doctor trial run tune shake; or return 1
    set -e words[1]
    while set -q words[1]
        if test "$words[1]" = --
            set -e words[1]
            break
        else if contains -- "$words[1]" --async-keep --backend --batch-bytes --code --csv --decay --file --fill --free-sync --host --html --ignore --kind --limit --max-block --mode --modes --order --programs --reports --reserve --runs --save --seed --settings --shake --slack --stats --stdin --thread-cache-bytes --thread-cache-max-block --tier-steps --tolerance --trace --unshaken --verbose -n
            set -e words[1]
            set -e words[1]
        else if string match -q -- '-*' "$words[1]"
            set -e words[1]
        else
            break
        end
    end
    set -q words[1]; or return 1
    string join -- \n $words
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
complete -c cmp-preload -n __cmp_preload_needs_command -a doctor -d 'does the pool work here, for this program?'
complete -c cmp-preload -n '__cmp_preload_using doctor' -a '(__fish_complete_command)'
complete -c cmp-preload -n '__cmp_preload_using doctor' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n __cmp_preload_needs_command -a trial -d 'what does the program gain, and is it safe?'
complete -c cmp-preload -n '__cmp_preload_using trial' -a '(__fish_complete_command)'
complete -c cmp-preload -n '__cmp_preload_using trial' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n '__cmp_preload_using trial' -s n -l runs -x -d 'runs of each kind (default: 6; no verdict on times with fewer)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l stdin -r -F -d 'what the program reads (default: nothing)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l tee -d 'show what the program writes, on stderr'
complete -c cmp-preload -n '__cmp_preload_using trial' -l modes -x -a 'wait auto order none' -d 'values of CMP_FREE_SYNC to try, of: wait, auto, order, none (default: auto,order,none)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l no-fill -d 'leave out the run with filled memory'
complete -c cmp-preload -n '__cmp_preload_using trial' -l shake -x -d 'shaken runs, where a mode that keeps less than auto gains: it is recommended only if they agree (default: 8 of each kind; 0: none)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l ignore -x -d 'what in output lines is noise, not to be compared; may be given several times'
complete -c cmp-preload -n '__cmp_preload_using trial' -l tolerance -x -d 'numbers in the output that differ by no more count as the same, as 1e-6 (default: 0)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l stderr -d 'compare what the program writes on stderr, too'
complete -c cmp-preload -n '__cmp_preload_using trial' -l file -r -F -d 'a file that the program writes, to be compared, too; may be given several times'
complete -c cmp-preload -n '__cmp_preload_using trial' -l code -x -d 'the exit code of a run that went well (default: 0)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l limit -x -d 'a run that takes longer is ended (default: ten times the first run, and a minute)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l save -r -F -d 'write what is recommended into FILE, for run --settings FILE'
complete -c cmp-preload -n '__cmp_preload_using trial' -l json -d 'print what it found as JSON'
complete -c cmp-preload -n '__cmp_preload_using trial' -l programs -x -d 'globs, comma-separated'
complete -c cmp-preload -n '__cmp_preload_using trial' -l max-block -x -a 'auto' -d 'auto, bytes (at least 256)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l tier-steps -x -a '1 2 4 8 16' -d '1, 2, 4, 8, 16'
complete -c cmp-preload -n '__cmp_preload_using trial' -l thread-cache-max-block -x -d 'bytes, below 2M'
complete -c cmp-preload -n '__cmp_preload_using trial' -l thread-cache-bytes -x -d 'bytes'
complete -c cmp-preload -n '__cmp_preload_using trial' -l batch-bytes -x -d 'bytes, at least 1'
complete -c cmp-preload -n '__cmp_preload_using trial' -l slack -x -d 'a percentage, as 12.5%'
complete -c cmp-preload -n '__cmp_preload_using trial' -l reserve -x -a 'auto' -d 'auto, RATIOx+BYTES, RATIOx (1 or more) or BYTES'
complete -c cmp-preload -n '__cmp_preload_using trial' -l decay -x -a 'oncall off' -d 'a time (10s, 500ms), oncall, oncall:TIME, off'
complete -c cmp-preload -n '__cmp_preload_using trial' -l async-keep -x -a 'auto off' -d 'auto, off, bytes'
complete -c cmp-preload -n '__cmp_preload_using trial' -l host -x -a 'off on' -d 'off, on, bytes'
complete -c cmp-preload -n '__cmp_preload_using trial' -l fill -x -a 'off zero' -d 'off, zero, a byte (171, 0xAB)'
complete -c cmp-preload -n '__cmp_preload_using trial' -l trace -r -a 'off' -F -d 'off, a file name'
complete -c cmp-preload -n '__cmp_preload_using trial' -l verbose -x -a 'off on' -d 'off, on'
complete -c cmp-preload -n __cmp_preload_needs_command -a run -d 'start the program under the pool'
complete -c cmp-preload -n '__cmp_preload_using run' -a '(__fish_complete_command)'
complete -c cmp-preload -n '__cmp_preload_using run' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n '__cmp_preload_using run' -l reports -r -a '(__fish_complete_directories)' -d 'a JSON report of each process into FOLDER (made if it is not there)'
complete -c cmp-preload -n '__cmp_preload_using run' -l settings -r -F -d 'lines CMP_NAME=VALUE, as trial --save writes them; options count for more'
complete -c cmp-preload -n '__cmp_preload_using run' -l mode -x -a 'pool observe off' -d 'pool, observe, off'
complete -c cmp-preload -n '__cmp_preload_using run' -l programs -x -d 'globs, comma-separated'
complete -c cmp-preload -n '__cmp_preload_using run' -l max-block -x -a 'auto' -d 'auto, bytes (at least 256)'
complete -c cmp-preload -n '__cmp_preload_using run' -l tier-steps -x -a '1 2 4 8 16' -d '1, 2, 4, 8, 16'
complete -c cmp-preload -n '__cmp_preload_using run' -l thread-cache-max-block -x -d 'bytes, below 2M'
complete -c cmp-preload -n '__cmp_preload_using run' -l thread-cache-bytes -x -d 'bytes'
complete -c cmp-preload -n '__cmp_preload_using run' -l batch-bytes -x -d 'bytes, at least 1'
complete -c cmp-preload -n '__cmp_preload_using run' -l slack -x -d 'a percentage, as 12.5%'
complete -c cmp-preload -n '__cmp_preload_using run' -l reserve -x -a 'auto' -d 'auto, RATIOx+BYTES, RATIOx (1 or more) or BYTES'
complete -c cmp-preload -n '__cmp_preload_using run' -l decay -x -a 'oncall off' -d 'a time (10s, 500ms), oncall, oncall:TIME, off'
complete -c cmp-preload -n '__cmp_preload_using run' -l async-keep -x -a 'auto off' -d 'auto, off, bytes'
complete -c cmp-preload -n '__cmp_preload_using run' -l free-sync -x -a 'wait auto order none' -d 'wait, auto, order, none'
complete -c cmp-preload -n '__cmp_preload_using run' -l host -x -a 'off on' -d 'off, on, bytes'
complete -c cmp-preload -n '__cmp_preload_using run' -l fill -x -a 'off zero' -d 'off, zero, a byte (171, 0xAB)'
complete -c cmp-preload -n '__cmp_preload_using run' -l stats -r -a 'off on' -F -d 'off, on, a file name'
complete -c cmp-preload -n '__cmp_preload_using run' -l trace -r -a 'off' -F -d 'off, a file name'
complete -c cmp-preload -n '__cmp_preload_using run' -l verbose -x -a 'off on' -d 'off, on'
complete -c cmp-preload -n __cmp_preload_needs_command -a report -d 'what statistics and traces say'
complete -c cmp-preload -n '__cmp_preload_using report' -a '(__fish_complete_path (commandline -ct))'
complete -c cmp-preload -n '__cmp_preload_using report' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n '__cmp_preload_using report' -l html -r -F -d 'write one page with plots'
complete -c cmp-preload -n '__cmp_preload_using report' -l json -d 'print it as JSON'
complete -c cmp-preload -n '__cmp_preload_using report' -l all -d 'every process and size, not only the busiest'
complete -c cmp-preload -n __cmp_preload_needs_command -a tune -d 'which settings are best for the program?'
complete -c cmp-preload -n '__cmp_preload_using tune' -a '(__fish_complete_command)'
complete -c cmp-preload -n '__cmp_preload_using tune' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n '__cmp_preload_using tune' -s n -l runs -x -d 'runs with each choice of settings (default: 6; no verdict on times with fewer)'
complete -c cmp-preload -n '__cmp_preload_using tune' -l stdin -r -F -d 'what the program reads (default: nothing)'
complete -c cmp-preload -n '__cmp_preload_using tune' -l tee -d 'show what the program writes, on stderr'
complete -c cmp-preload -n '__cmp_preload_using tune' -l programs -x -d 'globs, comma-separated'
complete -c cmp-preload -n '__cmp_preload_using tune' -l max-block -x -a 'auto' -d 'auto, bytes (at least 256)'
complete -c cmp-preload -n '__cmp_preload_using tune' -l tier-steps -x -a '1 2 4 8 16' -d '1, 2, 4, 8, 16'
complete -c cmp-preload -n '__cmp_preload_using tune' -l thread-cache-max-block -x -d 'bytes, below 2M'
complete -c cmp-preload -n '__cmp_preload_using tune' -l thread-cache-bytes -x -d 'bytes'
complete -c cmp-preload -n '__cmp_preload_using tune' -l batch-bytes -x -d 'bytes, at least 1'
complete -c cmp-preload -n '__cmp_preload_using tune' -l slack -x -d 'a percentage, as 12.5%'
complete -c cmp-preload -n '__cmp_preload_using tune' -l reserve -x -a 'auto' -d 'auto, RATIOx+BYTES, RATIOx (1 or more) or BYTES'
complete -c cmp-preload -n '__cmp_preload_using tune' -l decay -x -a 'oncall off' -d 'a time (10s, 500ms), oncall, oncall:TIME, off'
complete -c cmp-preload -n '__cmp_preload_using tune' -l async-keep -x -a 'auto off' -d 'auto, off, bytes'
complete -c cmp-preload -n '__cmp_preload_using tune' -l free-sync -x -a 'wait auto order none' -d 'wait, auto, order, none'
complete -c cmp-preload -n '__cmp_preload_using tune' -l host -x -a 'off on' -d 'off, on, bytes'
complete -c cmp-preload -n '__cmp_preload_using tune' -l fill -x -a 'off zero' -d 'off, zero, a byte (171, 0xAB)'
complete -c cmp-preload -n '__cmp_preload_using tune' -l verbose -x -a 'off on' -d 'off, on'
complete -c cmp-preload -n __cmp_preload_needs_command -a shake -d 'races between streams that only cudaFree hides'
complete -c cmp-preload -n '__cmp_preload_using shake' -a '(__fish_complete_command)'
complete -c cmp-preload -n '__cmp_preload_using shake' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n '__cmp_preload_using shake' -s n -l runs -x -d 'shaken runs of each kind (default: 8)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l stdin -r -F -d 'what the program reads (default: nothing)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l tee -d 'show what the program writes, on stderr'
complete -c cmp-preload -n '__cmp_preload_using shake' -l kind -x -a 'order host' -d 'order: later work on another stream; host: what the host does after a free (default: both)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l unshaken -x -d 'runs without holds, which must agree among themselves; every other is under the pool (default: 4)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l seed -x -d 'seed of the first shaken run; the next ones count up from it (default: 1)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l ignore -x -d 'what in output lines is noise, not to be compared; may be given several times'
complete -c cmp-preload -n '__cmp_preload_using shake' -l tolerance -x -d 'numbers in the output that differ by no more count as the same, as 1e-6 (default: 0)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l stderr -d 'compare what the program writes on stderr, too'
complete -c cmp-preload -n '__cmp_preload_using shake' -l file -r -F -d 'a file that the program writes, to be compared, too; may be given several times'
complete -c cmp-preload -n '__cmp_preload_using shake' -l code -x -d 'the exit code of a run that went well (default: 0)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l limit -x -d 'a run that takes longer is ended (default: ten times the first run, and a minute)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l json -d 'print it as JSON'
complete -c cmp-preload -n '__cmp_preload_using shake' -l programs -x -d 'globs, comma-separated'
complete -c cmp-preload -n '__cmp_preload_using shake' -l max-block -x -a 'auto' -d 'auto, bytes (at least 256)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l tier-steps -x -a '1 2 4 8 16' -d '1, 2, 4, 8, 16'
complete -c cmp-preload -n '__cmp_preload_using shake' -l thread-cache-max-block -x -d 'bytes, below 2M'
complete -c cmp-preload -n '__cmp_preload_using shake' -l thread-cache-bytes -x -d 'bytes'
complete -c cmp-preload -n '__cmp_preload_using shake' -l batch-bytes -x -d 'bytes, at least 1'
complete -c cmp-preload -n '__cmp_preload_using shake' -l slack -x -d 'a percentage, as 12.5%'
complete -c cmp-preload -n '__cmp_preload_using shake' -l reserve -x -a 'auto' -d 'auto, RATIOx+BYTES, RATIOx (1 or more) or BYTES'
complete -c cmp-preload -n '__cmp_preload_using shake' -l decay -x -a 'oncall off' -d 'a time (10s, 500ms), oncall, oncall:TIME, off'
complete -c cmp-preload -n '__cmp_preload_using shake' -l async-keep -x -a 'auto off' -d 'auto, off, bytes'
complete -c cmp-preload -n '__cmp_preload_using shake' -l host -x -a 'off on' -d 'off, on, bytes'
complete -c cmp-preload -n '__cmp_preload_using shake' -l fill -x -a 'off zero' -d 'off, zero, a byte (171, 0xAB)'
complete -c cmp-preload -n '__cmp_preload_using shake' -l trace -r -a 'off' -F -d 'off, a file name'
complete -c cmp-preload -n '__cmp_preload_using shake' -l verbose -x -a 'off on' -d 'off, on'
complete -c cmp-preload -n __cmp_preload_needs_command -a replay -d 'a trace\'s allocations again, without the program'
complete -c cmp-preload -n '__cmp_preload_using replay' -a '(__fish_complete_path (commandline -ct))'
complete -c cmp-preload -n '__cmp_preload_using replay' -s h -l help -d 'show this help message and exit'
complete -c cmp-preload -n '__cmp_preload_using replay' -l backend -x -a 'real pool async all' -d 'real: cuMemAlloc and cuMemFree; pool: the same, under the pool; async: cuMemAllocAsync, memory kept; all (default): one after the other'
complete -c cmp-preload -n '__cmp_preload_using replay' -l order -x -a 'start call thread' -d 'start (default): calls start in the order in which they did; call: one after the other in that order; thread: each thread\'s own order, and no free before its allocation'
complete -c cmp-preload -n '__cmp_preload_using replay' -l json -d 'one line of JSON for each backend'
complete -c cmp-preload -n '__cmp_preload_using replay' -l csv -r -F -d 'no replay: write it as a CSV of RMM\'s (-: to stdout)'
complete -c cmp-preload -n '__cmp_preload_using replay' -l programs -x -d 'globs, comma-separated'
complete -c cmp-preload -n '__cmp_preload_using replay' -l max-block -x -a 'auto' -d 'auto, bytes (at least 256)'
complete -c cmp-preload -n '__cmp_preload_using replay' -l tier-steps -x -a '1 2 4 8 16' -d '1, 2, 4, 8, 16'
complete -c cmp-preload -n '__cmp_preload_using replay' -l thread-cache-max-block -x -d 'bytes, below 2M'
complete -c cmp-preload -n '__cmp_preload_using replay' -l thread-cache-bytes -x -d 'bytes'
complete -c cmp-preload -n '__cmp_preload_using replay' -l batch-bytes -x -d 'bytes, at least 1'
complete -c cmp-preload -n '__cmp_preload_using replay' -l slack -x -d 'a percentage, as 12.5%'
complete -c cmp-preload -n '__cmp_preload_using replay' -l reserve -x -a 'auto' -d 'auto, RATIOx+BYTES, RATIOx (1 or more) or BYTES'
complete -c cmp-preload -n '__cmp_preload_using replay' -l decay -x -a 'oncall off' -d 'a time (10s, 500ms), oncall, oncall:TIME, off'
complete -c cmp-preload -n '__cmp_preload_using replay' -l async-keep -x -a 'auto off' -d 'auto, off, bytes'
complete -c cmp-preload -n '__cmp_preload_using replay' -l free-sync -x -a 'wait auto order none' -d 'wait, auto, order, none'
complete -c cmp-preload -n '__cmp_preload_using replay' -l host -x -a 'off on' -d 'off, on, bytes'
complete -c cmp-preload -n '__cmp_preload_using replay' -l fill -x -a 'off zero' -d 'off, zero, a byte (171, 0xAB)'
complete -c cmp-preload -n '__cmp_preload_using replay' -l verbose -x -a 'off on' -d 'off, on'
