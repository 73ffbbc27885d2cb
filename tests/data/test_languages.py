import re

import pytest

from slam_potsa.data.languages import (
    LANGUAGES,
    find_language,
    language_id,
    short_code,
)
from slam_potsa.errors import InputError


def test_there_are_102_and_no_code_is_used_twice():
    assert len(LANGUAGES) == 102
    for field in ("locale", "code", "iso639_3", "name"):
        assert len({getattr(language, field) for language in LANGUAGES}) == 102, field
    assert [language.locale for language in LANGUAGES] == sorted(
        language.locale for language in LANGUAGES
    )


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.locale)
def test_every_spelling_leads_back(language):
    assert re.fullmatch(r"[a-z]{2,3}(_[a-z]{4})?_([a-z]{2}|419)", language.locale)
    assert re.fullmatch("[a-z]{3}", language.iso639_3)
    assert language_id(language.code)  # may stand in a manifest
    for text in (language.locale, language.code, language.iso639_3, language.name):
        for spelt in (text, text.upper(), text.replace("_", "-"), f" {text} "):
            assert find_language(spelt) is language


CODES = """fr_fr=fr fra=fr fr-CA=fr cmn_hans_cn=zh zh-CN=zh zh-Hans=zh zho=zh zh-HK=yue
yue_hant_hk=yue es_419=es nb_no=nb no=nb iw_il=he he_il=he sv-SE=sv arb=ar tl=fil kea=kea
northern-sotho=nso Sorani-Kurdish=ckb Mandarin_Chinese=zh"""


@pytest.mark.parametrize(("text", "code"), [pair.split("=") for pair in CODES.split()])
def test_short_code(text, code):
    assert short_code(text) == code == short_code(text.replace("_", " "))


def test_names_and_locales():
    assert [find_language(code).name for code in ("zh", "fr_fr")] == ["Chinese", "French"]
    locales = [find_language(code).locale for code in ("es", "zh", "yue", "kea", "pt-PT")]
    assert locales == ["es_419", "cmn_hans_cn", "yue_hant_hk", "kea_cv", "pt_br"]


@pytest.mark.parametrize(
    ("text", "near"),
    [("frr", "'fr' (French)"), ("engl", "'en' (English)"), ("koreann", "'ko' (Korean)")]
    + [(text, "such as 'fr'") for text in ("", "x", "fr_frr", "fr_fr_fr_paris", "123")],
)
def test_unknown_languages_are_refused_with_near_ones(text, near):
    with pytest.raises(InputError, match=f"language {text!r}: not known") as caught:
        find_language(text)
    assert near in str(caught.value)
