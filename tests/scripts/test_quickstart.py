"""What somebody meets who builds for the first time: progress, and what is missing, in one line."""

import os
import shutil
import subprocess

from command import SOURCE, TestCase, main


def shell(script, **env):
    """`script` with scripts/common.sh, from the root of the project."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f". scripts/common.sh\n{script}", "scripts/quickstart"],
        cwd=SOURCE,
        env={**os.environ, **env},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


class Quickstart(TestCase):
    def configured(self, *options):
        return subprocess.run(
            ["cmake", "-S", SOURCE, "-B", self.folder(), "-G", "Ninja", *options],
            text=True,
            capture_output=True,
            timeout=240,
            check=False,
        )

    def test_progress(self):
        ninja = "printf '%s\\n' '-- cmake' '[0/1] again'; for i in $(seq 50); do echo \"[$i/50] Building\"; done"
        result = shell(f"({ninja}) | show_progress")
        self.assert_ok(result)
        self.assertEqual(
            result.stdout.split("\n"),
            ["  0 of 1", "  10 of 50", "  20 of 50", "  30 of 50", "  40 of 50", "  50 of 50", ""],
        )
        self.assertEqual(shell("(echo '[1/4] x'; exit 3) | show_progress || echo failed").stdout, "  1 of 4\nfailed\n")

    def test_no_headers_and_no_network(self):
        if shutil.which("python3") is None:
            self.skipTest("no Python of that name")
        result = shell(f"cuda_headers '{self.folder()}' 12.4", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        self.assert_ok(result, 1)
        self.assertEqual(result.stdout, "")
        last = result.stderr.splitlines()[-1]
        self.assertTrue(last.startswith("error: nvidia-cuda-runtime"), result.stderr)
        self.assertIn("CUDA_HOME=FOLDER scripts/quickstart", last)
        self.assertIn("-DCMP_CUDA_INCLUDE=FOLDER", last)

    def test_cmake_without_headers(self):
        result = self.configured(
            "-DCMAKE_FIND_ROOT_PATH=/nowhere", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"
        )
        self.assertNotEqual(result.returncode, 0)
        said = " ".join(result.stderr.split())
        self.assertIn("cuda.h was not found", said)
        self.assertIn("CUDA_HOME=FOLDER cmake", said)
        self.assertIn("-DCMP_CUDA_INCLUDE=FOLDER", said)

    def test_cmake_without_googletest(self):
        """Whoever only installs needs none; whoever asks for the unit tests is told."""
        without = "-DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON"
        result = self.configured(without)
        self.assert_ok(result)
        self.assertIn("No GoogleTest (libgtest-dev): the unit tests are left out", result.stdout)
        self.assertNotEqual(self.configured(without, "-DCMP_UNIT_TESTS=ON").returncode, 0)


if __name__ == "__main__":
    main()
