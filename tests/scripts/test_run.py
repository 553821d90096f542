"""cmp-preload run: the program as without, but for the pool."""

import ast
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
import unittest

from command import BUILD, COMMAND, PLAIN, PLAIN_SAYS, ROOT, SOURCE, TestCase, environment, main
from command import run, start
from cmp_preload.pool.settings import SHAKE


def printed_options():
    """name: (default, values), as the documentation's table has it."""
    rows = subprocess.run(
        [BUILD / "tests/docs/print_options"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return {
        name: (default, values)
        for name, default, values in re.findall(
            r"^\| `(CMP_\w+)` \| `(.*?)` \| (.*?) \|", rows, re.M
        )
    }


class Settings(TestCase):
    def test_every_setting_is_an_option(self):
        options = printed_options()
        self.assertGreater(len(options), 12)
        help_text = " ".join(run("run", "--help").stdout.split())
        self.assertLess(set(SHAKE), set(options))  # trial has another --shake
        for name, (default, values) in options.items():
            if name in SHAKE:
                continue
            flag = "--" + name[4:].lower().replace("_", "-")
            self.assertIn(f"{flag} VALUE", help_text)
            self.assertIn(f"(default: {default})", help_text)
            shown = run("run", f"{flag}={default}", "--", "sh", "-c", f"echo ${name}")
            self.assertEqual((shown.stdout, shown.stderr), (default + "\n", ""))
            for wrong in ("no such value", ""):
                if name in ("CMP_PROGRAMS", "CMP_STATS", "CMP_TRACE", "CMP_SHAKE_SITES",
                            "CMP_SHAKE_REPORT"):  # any text is a name
                    continue
                self.assert_refused(run("run", flag, wrong, "--", "true"), flag, values)

    def test_wrong_options(self):
        self.assert_refused(run("run", "--free-synch=wait", "true"), "--free-synch", "--free-sync?")
        self.assert_refused(run("run", "--zzz", "--", "true"), "--zzz", "--max-block", "--fill")
        self.assert_refused(run("run", "--fill"), "--fill")
        self.assert_refused(run("run"), "which program")
        self.assert_refused(run("run", "--reports", "x", "--stats", "1", "true"), "--stats")
        self.assert_refused(run("walk"), "walk", "doctor, trial, run, report, tune, shake, replay")
        self.assert_refused(run("trail"), "did you mean trial?")
        self.assert_refused(run("--library", "/nowhere", "run", "true"), "/nowhere")

    def test_the_programs_own_options_are_left_alone(self):
        for between in ([], ["--"]):
            shown = run("run", "--fill=zero", *between, "echo", "--fill", "x", "--", "-h", "")
            self.assertEqual(shown.stdout, "--fill x -- -h \n")

    def test_given_beats_environment_and_the_rest_stays(self):
        shown = run(
            "run",
            "--fill=zero",
            "--",
            "sh",
            "-c",
            "echo $CMP_FILL $CMP_SLACK",
            env={"CMP_FILL": "7", "CMP_SLACK": "1%"},
        )
        self.assertEqual(shown.stdout, "zero 1%\n")


class AsWithout(TestCase):
    def test_served(self):
        result = run("run", "--stats", "1", "--", PLAIN, "100")
        self.assert_ok(result)
        self.assertEqual(result.stdout, PLAIN_SAYS)
        self.assertIn("100 allocations, 99 (99.0%) without a real call", result.stderr)

    def test_exit_codes_and_signals(self):
        for code in (0, 1, 7, 77, 255):
            self.assert_ok(run("run", "--", "sh", "-c", f"exit {code}"), code)
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE):
            self.assert_ok(run("run", "--", "sh", "-c", f"kill -{int(number)} $$"), -number)
        running = start(
            "run", "--", "sh", "-c", "trap 'exit 5' USR1; echo up; while :; do sleep 0.01; done"
        )
        self.assertEqual(running.stdout.readline(), "up\n")
        running.send_signal(signal.SIGUSR1)
        running.communicate(timeout=20)
        self.assertEqual(running.returncode, 5)

    def test_programs_that_cannot_start(self):
        self.assert_refused(run("run", "--", "no-such-program"), "no-such-program", code=127)
        folder = self.folder()
        (folder / "text").write_text("no program")
        self.assert_refused(run("run", "--", folder / "text"), "text", code=126)

    def test_same_environment_signals_files(self):
        """In the C locale, where Python changes its own environment, too."""
        script = self.script(
            "env | grep -v '^_='; ls /proc/$$/fd; pwd; cat\n"
            "exec grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status"
        )
        for env in ({}, {"LC_ALL": None, "LANG": None, "LC_CTYPE": None}, {"LC_ALL": "C"}):
            plain = subprocess.run(
                [script],
                env=environment(env),
                input="in\n",
                text=True,
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            under = run("run", "--", script, env=env, input="in\n").stdout
            added = f"LD_PRELOAD={BUILD / 'libcmp_preload.so'}"
            self.assertIn(added, under)
            # The shell or a launcher script of Python itself may add to the environment before us.
            asked = subprocess.run(
                [
                    "sh",
                    "-c",
                    'exec python3 -IS -c "$0"',
                    "print(open('/proc/self/environ').read()" ".replace(chr(0), chr(10)))",
                ],
                env=environment(env),
                text=True,
                stdout=subprocess.PIPE,
                check=True,
            ).stdout.splitlines()
            names = {line.split("=")[0] for line in asked} - set(environment(env))
            left = [
                line
                for line in under.splitlines()
                if line != added and line.split("=")[0] not in names | {"PATH"}
            ]
            self.assertEqual(
                sorted(left),
                sorted(
                    line
                    for line in plain.splitlines()
                    if line.split("=")[0] not in names | {"PATH"}
                ),
            )

    def test_modules_of_the_user_are_the_programs_alone(self):
        folder = self.folder()
        for name in ("json", "types", "sitecustomize"):
            (folder / f"{name}.py").write_text("raise SystemExit('a module of the user')")
        path = {"PYTHONPATH": folder, "PYTHONHOME": "/nowhere"}
        for command in ("run", "doctor"):
            result = run(command, "--", "sh", "-c", 'echo "$PYTHONPATH"', env=path)
            self.assert_ok(result)
            self.assertEqual(result.stdout == f"{folder}\n", command == "run")

    def test_existing_preload_stays(self):
        wrapper = str(BUILD / "programs" / "malloc_wrapper.so")
        result = run("run", "--stats=1", "--", PLAIN, "100", env={"LD_PRELOAD": wrapper})
        self.assertIn("# mallocs", result.stdout)
        self.assertIn("99 (99.0%) without a real call", result.stderr)
        twice = run(
            "run",
            "--",
            sys.executable,  # its own start is a script, where the wrapper's report is in the way
            COMMAND,
            "run",
            "--",
            "sh",
            "-c",
            "echo $LD_PRELOAD",
            env={"LD_PRELOAD": wrapper},
        )
        self.assertEqual(twice.stdout, f"{BUILD / 'libcmp_preload.so'}:{wrapper}\n")


    def test_steps_aside_for_another_preload(self):
        """One that takes cudaMalloc behind the pool: said by the program and by its report."""
        wrapper = str(BUILD / "programs" / "wrapper.so")
        reports = self.folder() / "reports"
        result = run("run", f"--reports={reports}", "--", PLAIN, "100", env={"LD_PRELOAD": wrapper})
        self.assertIn("# wrapped 100 100", result.stdout)
        self.assertIn("wrapper.so wraps cudaMalloc behind libcmp_preload.so", result.stderr)
        said = run("report", str(reports)).stdout
        self.assertIn("every call was real: ", said)
        self.assertIn("wrapper.so wraps cudaMalloc behind", said)


class Reports(TestCase):
    def read(self, folder):
        return {path.name: json.loads(path.read_text()) for path in sorted(folder.iterdir())}

    def test_one_for_every_process(self):
        """A shell script with programs one after the other and side by side, in other folders."""
        folder = self.folder() / "reports" / "%d"
        script = self.script(f"{PLAIN} 10; cd /; {PLAIN} 20 & {PLAIN} 30 & wait")
        result = run("run", "--reports", folder, "--", script, env={"SLURM_PROCID": "3"})
        self.assert_ok(result)
        self.assertEqual((result.stdout, result.stderr), (PLAIN_SAYS * 3, ""))
        reports = self.read(folder)
        self.assertEqual(sorted(r["totals"]["requests"] for r in reports.values()), [10, 20, 30])
        for name, report in reports.items():
            self.assertRegex(name, rf"^{re.escape(os.uname().nodename)}\.3\.{report['pid']}\.json$")
        self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        for path in folder.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_forked_children(self):
        folder = self.folder()
        result = run("run", "--reports", folder, "--", BUILD / "programs" / "forks")
        self.assert_ok(result)
        self.assertEqual(
            len({r["pid"] for r in self.read(folder).values()}), len(self.read(folder))
        )
        self.assertGreater(len(self.read(folder)), 0)

    def test_a_folder_that_cannot_be_written(self):
        """Costs a line, not the run."""
        taken = self.folder() / "file"
        taken.write_text("mine")
        result = run("run", "--reports", taken, "--", PLAIN, "10")
        self.assert_ok(result)
        self.assertEqual(result.stdout, PLAIN_SAYS)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertEqual(taken.read_text(), "mine")

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_full_disk(self):
        before = os.path.exists("/dev/full.live")
        result = run("run", "--stats", "/dev/full", "--", PLAIN, "10")
        self.assert_ok(result)
        self.assertEqual(result.stdout, PLAIN_SAYS)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertEqual(os.path.exists("/dev/full.live"), before)  # nothing is left beside it

    def test_links_are_not_followed(self):
        folder = self.folder()
        (folder / "target").write_text("mine")
        (folder / "stats.json").symlink_to(folder / "target")
        result = run("run", "--stats", folder / "stats.json", "--", PLAIN, "10")
        self.assert_ok(result)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertEqual((folder / "target").read_text(), "mine")


def can_run(python, as_other):
    """Python may lie in a folder of root's."""
    try:
        return as_other(python, "-c", "").returncode == 0
    except OSError:
        return False


class Places(TestCase):
    @unittest.skipUnless(ROOT, "needs root")
    def test_set_user_id(self):
        """Such a program takes nothing of the preload, and cmp-preload says so."""
        folder = self.folder()
        folder.chmod(0o755)
        program = shutil.copy(PLAIN, folder / "plain")
        os.chmod(program, 0o4755)

        def other_user():
            os.setgid(65534)
            os.setuid(65534)

        def as_other(*command):
            return subprocess.run(
                command,
                env=environment(),
                preexec_fn=other_user,
                text=True,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

        stats = folder / "stats.json"
        try:
            python = next(p for p in (sys.executable, "/usr/bin/python3") if can_run(p, as_other))
            if as_other(python, COMMAND, "--version").returncode != 0:
                raise StopIteration
        except StopIteration:
            self.skipTest("another user cannot run what is here")
        result = as_other(python, COMMAND, "run", "--stats", stats, "--", program)
        self.assertIn("runs without the pool: it is set-user-id", result.stderr)
        self.assertFalse(stats.exists())

    def test_paths_with_spaces_and_colons(self):
        """Of the library, the program, what it leaves and where temporary files are."""
        for name in ("a b", "a:b", "a b:c d"):
            folder = self.folder() / name
            folder.mkdir()
            library = shutil.copy(BUILD / "libcmp_preload.so", folder)
            program = shutil.copy(PLAIN, folder / "my app")
            for temporary in (self.folder(), folder):
                with self.subTest(name=name, temporary=temporary):
                    env = {"TMPDIR": temporary}
                    under = ("--library", library)
                    reports = temporary / "re ports:"
                    for _ in range(2):  # the link is there already
                        result = run(
                            *under, "run", "--reports", reports, "--trace", reports / "t.%p",
                            "--", program, "100", env=env,
                        )
                        self.assertEqual((result.stdout, result.stderr), (PLAIN_SAYS, ""))
                    said = run(*under, "report", reports, env=env)
                    self.assert_ok(said)
                    self.assertRegex(said.stdout, r"(?m)^all 2 +200 +99\.0%")
                    self.assertRegex(said.stdout, r"my app \d+ +200 ")
                    said = run(*under, "doctor", "--", program, "100", env=env)
                    self.assert_ok(said)
                    self.assertIn("has a space or colon in its path", said.stdout)
                    self.assertIn("a test of 100 allocations: 99 without a real call", said.stdout)
                    (link,) = re.findall(r"LD_PRELOAD=(\S+)", said.stdout)
                    self.addCleanup(shutil.rmtree, os.path.dirname(link), ignore_errors=True)
                    said = run(
                        *under, "trial", "-n", "1", "--modes", "auto", "--no-fill", "--", program,
                        "100", env=env,
                    )
                    self.assert_ok(said)
                    self.assertRegex(said.stdout, r"(?m)^auto .* 99\.0% ")

    def test_a_place_that_is_somebody_elses(self):
        """A link is not made where others could change it."""
        folder = self.folder() / "a b"
        folder.mkdir()
        library = shutil.copy(BUILD / "libcmp_preload.so", folder)
        temporary = self.folder()
        own = temporary / f"cmp-preload-{os.geteuid()}"
        own.mkdir()
        own.chmod(0o777)
        env = {"TMPDIR": temporary}
        result = run("--library", library, "run", "--", "sh", "-c", "echo $LD_PRELOAD", env=env)
        self.assert_ok(result)
        self.assertEqual(list(own.iterdir()), [])
        self.assertFalse(result.stdout.startswith(str(temporary)))
        shutil.rmtree(os.path.dirname(result.stdout.strip()))

    def test_statically_linked(self):
        """Runs as without, and is told about."""
        compiler = shutil.which("cc")
        program = self.folder() / "static"
        if (
            compiler is None
            or subprocess.run(
                [compiler, "-static", "-x", "c", "-", "-o", program],
                input=b"int main(void){return 9;}",
                check=False,
                capture_output=True,
            ).returncode
            != 0
        ):
            self.skipTest("cannot link statically")
        result = run("run", "--", program)
        self.assert_ok(result, 9)
        self.assertIn("without a dynamic linker", result.stderr)

    def test_installed(self):
        prefix = self.folder()
        subprocess.run(
            ["cmake", "--install", BUILD, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL
        )
        result = subprocess.run(
            [prefix / "bin" / "cmp-preload", "run", "--stats=1", "--", PLAIN, "10"],
            env=environment(),
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.assertEqual(result.stdout, PLAIN_SAYS)
        self.assertIn("10 allocations", result.stderr)
        self.assertEqual(list(prefix.rglob("*.pyc")), [])

    def test_modules_are_of_python_3_8(self):
        for path in [
            SOURCE / "scripts" / "cmp-preload",
            *(SOURCE / "scripts" / "cmp_preload").rglob("*.py"),
        ]:
            ast.parse(path.read_text(), str(path), feature_version=(3, 8))


class Terminal(TestCase):
    def test_interrupt_reaches_the_program_alone(self):
        """As a terminal sends it: to the whole group. No trace of Python."""
        running = start(
            "run",
            "--",
            "sh",
            "-c",
            "trap 'exit 6' INT; echo up; while :; do sleep 0.01; done",
            start_new_session=True,
        )
        self.assertEqual(running.stdout.readline(), "up\n")
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        self.assertEqual((running.returncode, errors), (6, ""))

    def test_interrupt_and_end_without_a_handler(self):
        """The program ends by the signal itself: 130 and 143 in a shell. Its children end with it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number=number):
                running = start(
                    "run",
                    "--",
                    sys.executable,
                    "-c",
                    "import signal, subprocess, sys\n"
                    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
                    "child = subprocess.Popen(['sleep', '1000'])\n"
                    "print(child.pid, flush=True)\n"
                    "child.wait()",
                    start_new_session=True,
                )
                child = int(running.stdout.readline())
                os.killpg(running.pid, number)
                _, errors = running.communicate(timeout=20)
                self.assertEqual((running.returncode, errors), (-number, ""))
                while os.path.exists(f"/proc/{child}") and state_of(child) != "Z":
                    time.sleep(0.01)

    def trial_on_a_terminal(self, columns, **env):
        """What a trial prints on a terminal of so many columns."""
        reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {"COLUMNS": None, "TERM": "xterm", "NO_COLOR": None} | env
        arguments = ["trial", "-n", "1", "--modes", "auto", "--no-fill", "--", PLAIN, "100"]
        running = subprocess.Popen(
            [sys.executable, str(COMMAND), *arguments],
            env=environment(env),
            stdin=writer,
            stdout=writer,
            stderr=writer,
        )
        os.close(writer)
        said = b""
        while chunk := read_all_of(reader):
            said += chunk
        os.close(reader)
        self.assertEqual(running.wait(60), 0, said)
        return said.decode()

    def test_terminals(self):
        """Codes only where they are understood and wanted; nothing that matters is cut off."""
        for columns in (200, 20):
            wide = self.trial_on_a_terminal(columns)
            self.assertIn("\r\033[K", wide)
            progress = wide[: wide.rindex("\r\033[K")]
            for line in progress.split("\r\033[K"):
                self.assertLess(len(line), columns)
            for env in ({"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": None}):
                with self.subTest(columns=columns, env=env):
                    plain = self.trial_on_a_terminal(columns, **env)
                    self.assertNotIn("\033", plain)
                    self.assertIn("run 1 of 4: without, to warm up", plain)
                    self.assertIn("frees that waited", plain)
                    self.assertIn("results identical", plain)

    def test_full_disk(self):
        """One line, and the exit code says it."""
        for arguments in (("--help",), ("run", "--help"), ("doctor",)):
            with self.subTest(arguments=arguments), open("/dev/full", "wb") as full:
                result = subprocess.run(
                    [sys.executable, str(COMMAND), *arguments],
                    env=environment(),
                    stdout=full,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=False,
                )
                self.assertEqual(
                    (result.returncode, result.stderr),
                    (1, "cmp-preload: cannot write: No space left on device\n"),
                )
                result = subprocess.run(
                    [sys.executable, str(COMMAND), "nonsense"],
                    env=environment(),
                    stderr=full,
                    check=False,
                )
                self.assertEqual(result.returncode, 2)


def read_all_of(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


class SettingsFiles(TestCase):
    def file(self, text):
        path = self.folder() / "settings"
        path.write_text(text)
        return path

    def test_they_are_used(self):
        path = self.file("# tried\n\n CMP_SLACK = 0% \nCMP_FREE_SYNC=order\nCMP_FILL=0xFF\n")
        said = run("run", "--settings", path, "--fill", "zero", "--", "env").stdout.splitlines()
        for line in ("CMP_SLACK=0%", "CMP_FREE_SYNC=order", "CMP_FILL=zero"):
            self.assertIn(line, said)

    def test_wrong_lines(self):
        for text, number, what in (
            ("\nCMP_SLACK\n", 2, "'CMP_SLACK' is not of the form CMP_NAME=VALUE"),
            ("CMP_SLAK=0%\n", 1, "'CMP_SLAK' is not a setting of the pool; did you mean CMP_SLACK?"),
            ("LD_PRELOAD=x\n", 1, "'LD_PRELOAD' is not a setting of the pool"),
            ("#\n#\nCMP_SLACK=much\n", 3, "CMP_SLACK: 'much' is not understood; right: "),
            ("CMP_SLACK=\n", 1, "CMP_SLACK: '' is not understood; right: "),
            ("CMP_SLACK=0%\nCMP_SLACK=0%\n", 2, "CMP_SLACK is set for the second time"),
        ):
            with self.subTest(text=text):
                path = self.file(text)
                self.assert_refused(
                    run("run", "--settings", path, "--", "env"), f"{path}:{number}: {what}"
                )
        self.assert_refused(run("run", "--settings", "/nowhere", "--", "env"), "/nowhere: No such")
        path = self.folder() / "binary"
        path.write_bytes(b"\xff\xfe")
        self.assert_refused(run("run", "--settings", path, "--", "env"), "not a settings file")


if __name__ == "__main__":
    main()
