"""`docs/configuration.md`: every option, written from the options themselves.

python docs/reference.py > docs/configuration.md
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import Any

from slam_potsa.config.option import NOT_IN_PAPER, section_kind, sections
from slam_potsa.config.sections import PotsaConfig

PAGE = "docs/configuration.md"
COMMAND = f"python docs/reference.py > {PAGE}"

_INTRODUCTION = f"""\
# Configuration

Every option, as `SECTION.KEY=VALUE` on the command line of `finetune.py` (in the folder that
`slam-potsa where examples` names), or as YAML. The defaults are those of the code; the files of
`conf/` choose other values over them, and the script's `--cfg job` prints what a command would run
with. Unknown keys, values out of range, and values that do not fit each other are refused before
training starts, all at once.

*Source* says where a default is from: a paper's section or table, SLAM-LLM (the key is
SLAM-LLM's), CoT-ST (its recipe `st_covost2`). "ours" is a value that the POTSA paper does not give.
Where nothing is said, the option belongs to this package. *Affects* says what a change changes:
the *weights* that a step computes (a run that has begun refuses it), the *outcome* (when training
stops, and which weights are kept: free for a continuation), the *answers* of a trained model, or
*nothing* but places, names, logs and speed.

This page is generated from `slam_potsa/config/`: `{COMMAND}`.
"""
_HEAD = f"| key | default | meaning | limits | affects | source |\n|{' --- |' * 6}"


def reference() -> str:
    """The page, as Markdown: a section a heading, an option a row."""
    parts = [_INTRODUCTION]
    for path, kind in sections(PotsaConfig):
        title = f"`{path}`" if path else "Top level"
        about = f"{inspect.cleandoc(kind.__doc__ or '')}\n\n" if path else ""
        rows = [_row(spec) for spec in dataclasses.fields(kind) if section_kind(spec) is None]
        table = "\n".join([_HEAD, *rows])
        parts.append(f"## {title}\n\n{about}{table}\n")
    return "\n".join(parts)


def _row(spec: dataclasses.Field) -> str:
    facts = spec.metadata
    source = "ours" if facts["source"] == NOT_IN_PAPER else facts["source"]
    made = spec.default_factory
    default = spec.default if made is dataclasses.MISSING else made()
    cells = [f"`{spec.name}`", _code(default), _plain(facts["help"]), _limits(spec)]
    return f"| {' | '.join([*cells, facts['affects'], _plain(source)])} |"


def _limits(spec: dataclasses.Field) -> str:
    """Choices, or type and range: what `config.check` refuses otherwise."""
    facts = spec.metadata
    if facts["choices"]:
        return ", ".join(map(_code, facts["choices"]))
    low, high = facts["low"], facts["high"]
    kind = re.sub(r"list\[(\w+)\]", r"list of \1", spec.type).replace("| None", "or null")
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


if __name__ == "__main__":
    print(reference(), end="")
