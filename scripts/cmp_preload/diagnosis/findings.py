"""What doctor finds: one line each, and what to do."""

from __future__ import annotations

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"


class Findings:
    def __init__(self) -> None:
        self.problems = 0

    def tell(self, kind: str, what: str, to_do: str = "") -> None:
        self.problems += kind == PROBLEM
        print(f"{kind:<8} {what}" + (f"\n         -> {to_do}" if to_do else ""))

    def ok(self, what: str) -> None:
        self.tell(OK, what)

    def note(self, what: str, to_do: str = "") -> None:
        self.tell(NOTE, what, to_do)

    def problem(self, what: str, to_do: str) -> None:
        self.tell(PROBLEM, what, to_do)
