"""What evaluation asks of language codes."""

from __future__ import annotations

from slam_potsa.data.predictions import Prediction


def primary(code: str) -> str:
    """The language of a code: "zh-CN" and "ZH_cn" -> "zh"."""
    return code.lower().replace("_", "-").split("-")[0]


def transcribes(item: Prediction) -> bool:
    """Speech recognition rather than translation: it is written in the language that is spoken."""
    return primary(item.language) == primary(item.target_language)


def one_line(text: str) -> str:
    """Text as it stands in a file of lines."""
    return text.replace("\r", " ").replace("\n", " ")
