"""Languages: their codes as integers that describe themselves, and the 102 of FLEURS by any code.

    language_id("fr") == 0x6672;  language_code(0x6672) == "fr"
    short_code("fr_fr") == short_code("fra") == short_code("French") == "fr"
    short_code("zh-CN") == short_code("cmn_hans_cn") == "zh"
    find_language("zh").name == "Chinese";  find_language("es").locale == "es_419"

The dataset and the model are built apart (SLAM-LLM hands the one its dataset_config, the other its
model_config), so a running index into a shared list could differ between them. A code of two to
eight characters is packed into one int64 instead: reversible, and it travels in checkpoints.

Short codes are those of manifests: ISO 639-1 where there is one, else ISO 639-3; Mandarin is `zh`,
Cantonese `yue`. `languages.tsv` has the locales and names of the loader that FLEURS was published
with, ISO 639-3 of the same scope as the ISO 639-1 code (`ara`, not `arb`), and more codes and names
of the same speech, as in FLORES, Seamless, Whisper and Common Voice. Hong Kong's is Cantonese.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.errors import InputError

UNKNOWN_LANGUAGE = -1
_CODE = re.compile(r"[a-z][a-z0-9_-]{1,7}")
_REGION_OR_SCRIPT = re.compile(r"[a-z]{4}|[a-z]{2}|\d{3}")  # as in BCP 47


def is_code(text: object) -> bool:
    """2 to 8 characters of a-z, 0-9, `_` and `-`, and no language's name: a model knows codes, to
    it "french" would be a language that it never heard."""
    return isinstance(text, str) and bool(_CODE.fullmatch(text)) and text not in _NAMES


def language_id(code: str) -> int:
    """`"fr"` -> 0x6672. Raises InputError unless `is_code`."""
    if not is_code(code):
        raise InputError(
            f"language code {code!r}: expected 2 to 8 characters a-z, 0-9, '_' or '-', and no "
            f"name, such as {code_for(code)!r}"
        )
    return int.from_bytes(code.encode("ascii"), "big")


def language_code(identifier: int) -> str:
    """The inverse of `language_id`; `"?"` for UNKNOWN_LANGUAGE."""
    if identifier == UNKNOWN_LANGUAGE:
        return "?"
    return identifier.to_bytes(8, "big").lstrip(b"\0").decode("ascii")


@dataclass(frozen=True)
class Language:
    """One language under its codes."""

    locale: str  # in FLEURS, such as "fr_fr"
    code: str  # in manifests, such as "fr"
    iso639_3: str  # such as "fra"
    name: str  # in English
    aliases: str  # other codes and names of the same speech, separated by blanks


_TABLE = Path(__file__).with_name("languages.tsv").read_text(encoding="utf-8")
LANGUAGES = tuple(Language(*line.split("\t")) for line in _TABLE.splitlines()[1:])  # after the head
_BY_TEXT = {
    text: known
    for known in LANGUAGES
    for text in (
        *(known.locale, known.code, known.iso639_3, known.name.lower().replace(" ", "_")),
        *known.aliases.split(),
    )
}
_NAMES = {known.name.lower() for known in LANGUAGES if len(known.name) > 3}


def find_language(text: str) -> Language:
    """The language that `text` names: a FLEURS locale, ISO 639-1 or 639-3 code, BCP 47 tag or name.

    Capitals do not matter, nor whether the parts are joined by `_`, `-` or a space. Scripts and
    regions that FLEURS does not have are ignored: `fr_CA` is French.

    Raises InputError with the nearest known codes.
    """
    wanted = _spelt(text)
    if known := _known(wanted):
        return known
    near = [_BY_TEXT[known] for known in difflib.get_close_matches(wanted, _BY_TEXT, 9, 0.5)]
    names = list(dict.fromkeys(f"{language.code!r} ({language.name})" for language in near))[:3]
    raise InputError(
        f"language {str(text)!r}: not known, expected a code or name of one of the "
        f"{len(LANGUAGES)} languages of FLEURS, such as 'fr', 'fra', 'fr_fr' or 'French'"
        + (f"; near are {', '.join(names)}" if names else "")
    )


def _spelt(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", str(text).strip().lower())


def _known(wanted: str) -> Language | None:
    if wanted in _BY_TEXT:
        return _BY_TEXT[wanted]
    first, *rest = wanted.split("_")
    is_tag = rest and all(_REGION_OR_SCRIPT.fullmatch(part) for part in rest)
    return _BY_TEXT.get(first) if is_tag else None


def code_for(value: object) -> str:
    """For messages: the code of what a tag or name such as "pt-BR" or "French" names, else "fr"."""
    known = _known(_spelt(value)) if isinstance(value, str) else None
    return known.code if known else "fr"


def short_code(text: str) -> str:
    """The code in manifests: `"fr_fr"`, `"fra"`, `"fr"` -> `"fr"`; `"zh-CN"` -> `"zh"`.

    Raises InputError as `find_language` does.
    """
    return find_language(text).code
