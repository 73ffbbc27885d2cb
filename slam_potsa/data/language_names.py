"""The 102 languages of FLEURS under every code that data sets give them.

    short_code("fr_fr") == short_code("fra") == short_code("French") == "fr"
    short_code("zh-CN") == short_code("cmn_hans_cn") == "zh"
    language_name("zh") == "Chinese";  fleurs_locale("es") == "es_419"

Short codes are those of manifests: ISO 639-1 where there is one, else ISO 639-3; Mandarin is `zh`,
Cantonese `yue`. Locales and names are those of the loader that FLEURS was published with, ISO 639-3
is the code of the same scope as the ISO 639-1 code (`ara`, not `arb`), which stays understood.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from slam_potsa.errors import InputError

# Locale, ISO 639-3, English name; the short code is the locale's first part.
_TABLE = """
af_za afr Afrikaans
am_et amh Amharic
ar_eg ara Arabic
as_in asm Assamese
ast_es ast Asturian
az_az aze Azerbaijani
be_by bel Belarusian
bg_bg bul Bulgarian
bn_in ben Bengali
bs_ba bos Bosnian
ca_es cat Catalan
ceb_ph ceb Cebuano
ckb_iq ckb Sorani Kurdish
cmn_hans_cn cmn Chinese
cs_cz ces Czech
cy_gb cym Welsh
da_dk dan Danish
de_de deu German
el_gr ell Greek
en_us eng English
es_419 spa Spanish
et_ee est Estonian
fa_ir fas Persian
ff_sn ful Fula
fi_fi fin Finnish
fil_ph fil Filipino
fr_fr fra French
ga_ie gle Irish
gl_es glg Galician
gu_in guj Gujarati
ha_ng hau Hausa
he_il heb Hebrew
hi_in hin Hindi
hr_hr hrv Croatian
hu_hu hun Hungarian
hy_am hye Armenian
id_id ind Indonesian
ig_ng ibo Igbo
is_is isl Icelandic
it_it ita Italian
ja_jp jpn Japanese
jv_id jav Javanese
ka_ge kat Georgian
kam_ke kam Kamba
kea_cv kea Kabuverdianu
kk_kz kaz Kazakh
km_kh khm Khmer
kn_in kan Kannada
ko_kr kor Korean
ky_kg kir Kyrgyz
lb_lu ltz Luxembourgish
lg_ug lug Ganda
ln_cd lin Lingala
lo_la lao Lao
lt_lt lit Lithuanian
luo_ke luo Luo
lv_lv lav Latvian
mi_nz mri Maori
mk_mk mkd Macedonian
ml_in mal Malayalam
mn_mn mon Mongolian
mr_in mar Marathi
ms_my msa Malay
mt_mt mlt Maltese
my_mm mya Burmese
nb_no nob Norwegian
ne_np nep Nepali
nl_nl nld Dutch
nso_za nso Northern Sotho
ny_mw nya Nyanja
oc_fr oci Occitan
om_et orm Oromo
or_in ori Oriya
pa_in pan Punjabi
pl_pl pol Polish
ps_af pus Pashto
pt_br por Portuguese
ro_ro ron Romanian
ru_ru rus Russian
sd_in snd Sindhi
sk_sk slk Slovak
sl_si slv Slovenian
sn_zw sna Shona
so_so som Somali
sr_rs srp Serbian
sv_se swe Swedish
sw_ke swa Swahili
ta_in tam Tamil
te_in tel Telugu
tg_tj tgk Tajik
th_th tha Thai
tr_tr tur Turkish
uk_ua ukr Ukrainian
umb_ao umb Umbundu
ur_pk urd Urdu
uz_uz uzb Uzbek
vi_vn vie Vietnamese
wo_sn wol Wolof
xh_za xho Xhosa
yo_ng yor Yoruba
yue_hant_hk yue Cantonese
zu_za zul Zulu
"""
_SHORT = {"cmn": "zh"}  # the others are short already
_ALIASES = {  # other codes of the same speech -> short code
    # the individual languages inside ISO 639-3's macrolanguages, as in FLORES and Seamless
    **{"arb": "ar", "azj": "az", "ekk": "et", "fuv": "ff", "gaz": "om", "khk": "mn", "lvs": "lv"},
    **{"npi": "ne", "ory": "or", "pbt": "ps", "pes": "fa", "swh": "sw", "uzn": "uz", "zsm": "ms"},
    # ISO 639-2/B
    **{"arm": "hy", "bur": "my", "chi": "zh", "cze": "cs", "dut": "nl", "fre": "fr", "geo": "ka"},
    **{"ger": "de", "gre": "el", "ice": "is", "mac": "mk", "mao": "mi", "may": "ms", "per": "fa"},
    **{"rum": "ro", "slo": "sk", "wel": "cy", "zho": "zh"},
    # withdrawn codes, and Whisper's
    **{"in": "id", "iw": "he", "jw": "jv", "no": "nb", "nor": "nb", "tl": "fil", "tgl": "fil"},
    # other names
    **{"mandarin": "zh", "mandarin_chinese": "zh", "cantonese_chinese": "yue", "odia": "or"},
    **{"farsi": "fa", "chichewa": "ny", "tagalog": "fil", "norwegian_bokmal": "nb"},
    # Hong Kong's speech is Cantonese (Common Voice's zh-HK, XTREME-S's cmn_hant_hk)
    **{"zh_hk": "yue", "zh_hant_hk": "yue", "cmn_hant_hk": "yue"},
}
_REGION_OR_SCRIPT = re.compile(r"[a-z]{4}|[a-z]{2}|\d{3}")  # as in BCP 47


@dataclass(frozen=True)
class Language:
    """One language under its codes."""

    locale: str  # in FLEURS, such as "fr_fr"
    code: str  # in manifests, such as "fr"
    iso639_3: str  # such as "fra"
    name: str  # in English


def _parse(line: str) -> Language:
    locale, iso639_3, name = line.split(" ", 2)
    subtag = locale.split("_")[0]
    return Language(locale, _SHORT.get(subtag, subtag), iso639_3, name)


LANGUAGES = tuple(_parse(line) for line in _TABLE.strip().splitlines())
_BY_CODE = {language.code: language for language in LANGUAGES}
_BY_TEXT = {alias: _BY_CODE[code] for alias, code in _ALIASES.items()} | {
    text: language
    for language in LANGUAGES
    for text in (
        language.locale,
        language.code,
        language.iso639_3,
        language.name.lower().replace(" ", "_"),
    )
}


def find_language(text: str) -> Language:
    """The language that `text` names: a FLEURS locale, ISO 639-1 or 639-3 code, BCP 47 tag or name.

    Capitals do not matter, nor whether the parts are joined by `_`, `-` or a space. Scripts and
    regions that FLEURS does not have are ignored: `fr_CA` is French.

    Raises InputError with the nearest known codes.
    """
    wanted = re.sub(r"[\s_-]+", "_", str(text).strip().lower())
    if wanted in _BY_TEXT:
        return _BY_TEXT[wanted]
    first, *rest = wanted.split("_")
    if rest and first in _BY_TEXT and all(_REGION_OR_SCRIPT.fullmatch(part) for part in rest):
        return _BY_TEXT[first]
    raise InputError(
        f"language {str(text)!r}: not known, expected a code or name of one of the "
        f"{len(LANGUAGES)} languages of FLEURS, such as 'fr', 'fra', 'fr_fr' or 'French'; "
        f"near are {_near(wanted)}"
    )


def short_code(text: str) -> str:
    """The code in manifests: `"fr_fr"`, `"fra"`, `"fr"` -> `"fr"`; `"zh-CN"` -> `"zh"`.

    Raises InputError as `find_language` does.
    """
    return find_language(text).code


def language_name(text: str) -> str:
    """The English name: `"fr"` -> `"French"`. Raises InputError as `find_language` does."""
    return find_language(text).name


def fleurs_locale(text: str) -> str:
    """The folder in FLEURS: `"es"` -> `"es_419"`. Raises InputError as `find_language` does."""
    return find_language(text).locale


def _near(wanted: str) -> str:
    """`'fr' (French), ...`: languages with a code or name like `wanted`, then by their start."""
    texts = difflib.get_close_matches(wanted, _BY_TEXT, n=12, cutoff=0.5)
    texts += [text for text in _BY_TEXT if text.startswith(wanted[:1])]
    languages = dict.fromkeys(_BY_TEXT[text] for text in texts or _BY_TEXT)
    return ", ".join(f"{language.code!r} ({language.name})" for language in list(languages)[:3])
