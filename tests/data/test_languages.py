import re

from slam_potsa.data.languages import LANGUAGES, find_language, language_id, short_code
from tests.support import refused


def test_each_of_102_languages_is_found_by_every_spelling_of_its_own_codes():
    assert len(LANGUAGES) == 102
    for field in ("locale", "code", "iso639_3", "name"):
        assert len({getattr(language, field) for language in LANGUAGES}) == 102, field
    for language in LANGUAGES:
        assert re.fullmatch(r"[a-z]{2,3}(_[a-z]{4})?_([a-z]{2}|419)", language.locale)
        assert re.fullmatch("[a-z]{3}", language.iso639_3)
        assert language_id(language.code)  # may stand in a manifest
        for text in (language.locale, language.code, language.iso639_3, language.name):
            for spelt in (text, text.upper(), text.replace("_", "-"), f" {text} "):
                assert find_language(spelt) is language


CODES = """fr_fr=fr fra=fr fr-CA=fr cmn_hans_cn=zh zh-CN=zh zh-Hans=zh zho=zh zh-HK=yue
yue_hant_hk=yue es_419=es nb_no=nb no=nb iw_il=he he_il=he sv-SE=sv arb=ar tl=fil kea=kea
northern-sotho=nso Sorani-Kurdish=ckb Mandarin_Chinese=zh pt-PT=pt
zh-TW=zh pt-BR=pt zh_Hans=zh"""


def test_short_code():
    for text, code in (pair.split("=") for pair in CODES.split()):
        assert short_code(text) == code == short_code(text.replace("_", " "))


def test_unknown_languages_are_refused_with_near_ones():
    near = {"frr": "'fr' (French)", "engl": "'en' (English)"}
    for text in (*near, "", "x", "fr_frr", "fr_fr_fr_paris", "123"):
        caught = refused(f"language {text!r}: not known", find_language, text)
        assert near.get(text, "such as 'fr'") in str(caught)


def test_a_name_or_tag_in_place_of_a_code_is_refused_with_the_code():
    names = {"french": "fr", "korean": "ko", "maori": "mi"}
    for name, code in (names | {"zh-TW": "zh", "pt-BR": "pt", "zh_Hans": "zh"}).items():
        refused(f"'{name}': expected .* no name, such as '{code}'", language_id, name)
