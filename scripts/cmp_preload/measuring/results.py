"""Are the results of a run as they should be: exit code, outputs, files? Reference runs and what the
user says decide."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cmp_preload.console.errors import Failure
from cmp_preload.measuring import outputs
from cmp_preload.measuring.measurer import Run


class Results:
    """`code`: the exit code of a run that went well."""

    def __init__(
        self, code: int = 0, stderr: bool = False, ignore: Sequence[str] = (), tolerance: float = 0.0
    ) -> None:
        self.code = code
        self._stderr = stderr
        self._rules = outputs.rules_of(ignore)  # a wrong one is told before the first run
        self._tolerance = tolerance
        self.comparisons: list[outputs.Comparison] = []

    def learn(self, references: list[Run]) -> list[outputs.Comparison]:
        """What later runs are compared with."""
        names = [name for name in references[0].outputs if name != "stderr" or self._stderr]
        self.comparisons = [
            outputs.Comparison(
                name, [_output(run, name) for run in references], self._rules, self._tolerance
            )
            for name in names
        ]
        return self.comparisons

    def unstable(self, references: list[Run]) -> str | None:
        """Learns; where these runs differ among themselves by more than times and rates, in words."""
        self.comparisons = []
        failed = next(filter(None, map(self.difference, references)), None)
        found = (comparison.unstable() for comparison in self.learn(references))
        return failed or next(filter(None, found), None)

    def difference(self, run: Run) -> str | None:
        """Where a run differs from the reference runs, in words."""
        if run.over_limit or run.code != self.code:
            return run.failure()
        found = (one.difference(_output(run, one.name)) for one in self.comparisons)
        return next((where for where in found if where), None)

    def require(self, run: Run, command: list[str]) -> None:
        """Failure if a run without the pool did not go well."""
        if run.over_limit or run.code != self.code:
            raise Failure(
                f"{command[0]} fails without the pool: {run.ending()}"
                + (f", not the {self.code} of --code" if self.code else "")
                + (
                    f" (if that is right: --code {run.code})"
                    if run.code > 0 and not self.code
                    else ""
                )
                + "".join(f"\n    {line}" for line in run.last_lines(3))
            )


def _output(run: Run, name: str) -> bytes:
    """What the program wrote; the pool's own lines are none of its results."""
    data = run.outputs[name]
    if name != "stderr" or b"cmp: " not in data:
        return data
    lines = data.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"cmp: "))


def require_files(paths: list[str]) -> None:
    """Failure if the first run did not write what is to be compared."""
    for path in paths:
        if not os.path.exists(path):
            raise Failure(f"--file: the program did not write {path}")
