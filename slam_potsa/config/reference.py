"""`docs/configuration.md`: every option, written from the options themselves."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any

from slam_potsa.config.option import NOT_IN_PAPER, section_kind
from slam_potsa.config.sections import PotsaConfig

PAGE = "docs/configuration.md"
COMMAND = f"slam-potsa reference > {PAGE}"

_INTRODUCTION = f"""\
# Configuration

Every option, as `SECTION.KEY=VALUE` on the command line of `examples/potsa/finetune.py`, or as
YAML. The defaults are those of the code; the files of `conf/` choose other values over them, and
`python examples/potsa/finetune.py --cfg job` prints what a command would run with. Unknown keys,
values out of range, and values that do not fit each other are refused before training starts, all
at once.

*Source* says where a default is from: a paper's section or table, SLAM-LLM (the key is
SLAM-LLM's), CoT-ST (its recipe `st_covost2`). "ours" is a value that the POTSA paper does not give.
Where nothing is said, the option belongs to this package. *Affects* says what a change changes:
the *weights* that a step computes (a run that has begun refuses it), the *outcome* (when training
stops, and which weights are kept: free for a continuation), the *answers* of a trained model, or
*nothing* but places, names, logs and speed.

This page is generated from `slam_potsa/config/`: `{COMMAND}`.
"""


def reference() -> str:
    """The page, as Markdown: a section a heading, an option a row."""
    parts = [_INTRODUCTION]
    for path, kind in _sections(PotsaConfig, ""):
        title = f"`{path}`" if path else "Top level"
        about = "" if path == "" else f"{inspect.cleandoc(kind.__doc__ or '')}\n\n"
        parts.append(f"## {title}\n\n{about}{_table(kind)}\n")
    return "\n".join(parts)


def _sections(kind: type, path: str) -> Iterator[tuple[str, type]]:
    """(dotted path, dataclass) of `kind` and of all sections in it, in their order."""
    yield path, kind
    for spec in dataclasses.fields(kind):
        if inner := section_kind(spec):
            name = f"{path}.{spec.name}" + (".NAME" if "each" in spec.metadata else "")
            yield from _sections(inner, name.lstrip("."))


def _table(kind: type) -> str:
    lines = ["| key | default | meaning | limits | affects | source |", f"|{' --- |' * 6}"]
    for spec in dataclasses.fields(kind):
        if section_kind(spec) is None:
            lines.append(f"| {' | '.join(_cells(spec))} |")
    return "\n".join(lines)


def _cells(spec: dataclasses.Field) -> tuple[str, ...]:
    facts = spec.metadata
    source = "ours" if facts["source"] == NOT_IN_PAPER else facts["source"]
    meaning = _plain(facts["help"])
    key, affects = f"`{spec.name}`", facts["affects"]
    return key, _code(_default(spec)), meaning, _limits(spec), affects, _plain(source)


def _default(spec: dataclasses.Field) -> Any:
    made = spec.default_factory
    return spec.default if made is dataclasses.MISSING else made()


def _limits(spec: dataclasses.Field) -> str:
    """Choices, or type and range: what `config.check` refuses otherwise."""
    facts = spec.metadata
    if facts["choices"]:
        return ", ".join(map(_code, facts["choices"]))
    low, high = facts["low"], facts["high"]
    kind = str(spec.type).replace("| None", "or null").replace("list[str]", "list of str")
    kind = kind.replace("list[int]", "list of int")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    if low is not None:
        return f"{kind}, at least {low}"
    return kind if high is None else f"{kind}, at most {high}"


def _code(value: Any) -> str:
    """A value as YAML has it, in code style; an empty string as two quotes."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("\n", "\\n").replace("|", "\\|")


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is in a table's cell."""
    for character in "|*<":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
