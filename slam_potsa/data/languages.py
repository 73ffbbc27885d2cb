"""Language codes as integers that describe themselves.

The dataset and the model are built apart (SLAM-LLM hands the one its dataset_config, the other its
model_config), so a running index into a shared list could differ between them. A code of two to
eight characters is packed into one int64 instead: reversible, and it travels in checkpoints.
"""

from __future__ import annotations

import re

from slam_potsa.errors import InputError

UNKNOWN_LANGUAGE = -1
_CODE = re.compile(r"[a-z][a-z0-9_-]{1,7}")


def language_id(code: str) -> int:
    """`"fr"` -> 0x6672. Raises InputError unless 2 to 8 characters of a-z, 0-9, `_` and `-`."""
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise InputError(
            f"language code {code!r}: expected 2 to 8 characters a-z, 0-9, '_' or '-', such as 'fr'"
        )
    return int.from_bytes(code.encode("ascii"), "big")


def language_code(identifier: int) -> str:
    """The inverse of `language_id`; `"?"` for UNKNOWN_LANGUAGE."""
    if identifier == UNKNOWN_LANGUAGE:
        return "?"
    return identifier.to_bytes(8, "big").lstrip(b"\0").decode("ascii")
