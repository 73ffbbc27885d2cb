"""The one error that a user of this package is meant to read."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: every problem found, at once, each with its remedy.

    Args:
        problems: one message, or several. Each says what was expected, what came, where, and what
            to do. The command line prints them without a traceback and exits with code 2.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            lines = "\n".join(f"  - {problem}" for problem in self.problems)
            message = f"{len(self.problems)} problems:\n{lines}"
        super().__init__(message)

    def __reduce__(self):  # keeps the list through pickling (data-loader workers)
        return type(self), (self.problems,)
