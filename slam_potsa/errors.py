"""The one error that a user of this package is meant to read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


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


def refuse(problems: Iterable[str]) -> None:
    """Raise InputError with all `problems`, each once; nothing happens where there are none."""
    if found := list(dict.fromkeys(problems)):
        raise InputError(found)


EXIT_INPUT = 2  # of what the user gave; nothing was started


@contextmanager
def as_messages() -> Iterator[None]:
    """One message, and an exit code, in place of a traceback for what a user can mend.

    EXIT_INPUT for InputError, 130 for an interruption; 1 for what the file system refuses (a full
    disk, a folder that is gone or read-only) and for a loss that is not finite.
    """
    try:
        yield
        return
    except InputError as error:
        text, code = f"error: {error}", EXIT_INPUT
    except FloatingPointError as error:
        text, code = f"error: {error}", 1
    except OSError as error:
        name = error.filename2 or error.filename  # of a rename the one that the user gave
        where, what = f"{name}: " * bool(name), error.strerror or error
        text, code = f"error: {where}{what}; mend it and run the same command again", 1
    except RuntimeError as error:
        if "Symlink loop" not in str(error):  # what Path.resolve() says of one before Python 3.13
            raise
        text, code = f"error: {error}: give another path", 1
    except KeyboardInterrupt:
        text, code = "interrupted; run the same command again to continue", 130
    print(text, file=sys.stderr)
    sys.exit(code)


@contextmanager
def collecting(problems: list[str], place: object = "") -> Iterator[None]:
    """Add what an InputError inside says to `problems`, so that the next one is found too.

    Where there is a `place`, such as a path, each begins with it.
    """
    try:
        yield
    except InputError as error:
        problems += [f"{place}: {text}" if place else text for text in error.problems]


@contextmanager
def placed(place: object) -> Iterator[None]:
    """Begin with `place`, such as a path, what an InputError inside says."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {text}" for text in error.problems) from None


def each(
    call: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    progress: str = "",
) -> dict[Item, Result]:
    """Item -> `call(item)` of every item, in threads; InputError with the problems of all.

    Args:
        progress: what a bar says; empty: there is none.
    """
    from tqdm import tqdm

    def attempt(item: Item) -> Result | InputError:
        try:
            return call(item)
        except InputError as error:
            return error

    items = list(dict.fromkeys(items))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # Some at a time: a million waiting ones would take gigabytes.
        parts = (pool.map(attempt, items[n : n + 1000]) for n in range(0, len(items), 1000))
        results = chain.from_iterable(parts)
        done = tqdm(results, progress, len(items), disable=not progress)
        found = dict(zip(items, done, strict=True))
    problems = [p for e in found.values() if isinstance(e, InputError) for p in e.problems]
    refuse(problems)
    return found
