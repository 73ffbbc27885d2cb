"""The measures against sacrebleu's command line and known truths; groups of languages; presets."""

import importlib.util
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import score
from slam_potsa.evaluation.text_metrics import Convention, ErrorRate, cross_entropy, find_preset
from tests.support import refusal, refused
from tests.support.predictions import command_line, make

LOWER = ("--tokenize", "zh", "--lowercase", "--chrf-lowercase")


@pytest.mark.parametrize(
    ("target", "convention", "options"),
    [("en", Convention(), ()), ("zh", Convention(lowercase=True), LOWER)],
)
def test_scores_intervals_and_signatures_equal_the_command_line(
    tmp_path, target, convention, options
):
    """One language among others: no seed or cached reference leaks from corpus to corpus."""
    items = [
        replace(item, reference=f"{item.reference} ABC", prediction=f"{item.prediction} abc")
        for item in make(["fr", "en"], count=30, target=target)
    ]
    row = score(items, bootstrap=1000, convention=convention).row("fr")
    bleu, chrf = command_line(tmp_path, items[:30], "--confidence", *options)
    for ours, theirs in ((row.bleu, bleu), (row.chrf, chrf)):
        assert ours.value == pytest.approx(theirs["score"], abs=1e-7)
        # The command line adds resampled scores up in float32, we in float64.
        assert (ours.low + ours.high) / 2 == pytest.approx(theirs["confidence_mean"], rel=1e-6)
        half_width = (ours.high - ours.low) / 2
        assert half_width == pytest.approx(theirs["confidence_var"], rel=1e-6)
        assert ours.signature == theirs["signature"]


def test_recordings_of_one_sentence_are_resampled_together():
    """Said twice, a test is no larger; the score of the whole stays sacrebleu's."""
    once = [replace(item, sentence_id=item.key) for item in make(["fr"], count=40)]
    twice = once + [replace(item, key=f"{item.key}-again") for item in once]
    alone = [replace(item, sentence_id=None) for item in twice]
    one, two, many = (score(items, bootstrap=300).row("fr").bleu for items in (once, twice, alone))
    assert one.value == pytest.approx(two.value) == pytest.approx(many.value)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=1e-6)
    assert many.high - many.low < 0.85 * (two.high - two.low)
    assert two.signature == f"{one.signature}|sentences:40"


def test_groups_pool_sentences_and_average_languages():
    items = make(("fr", "en", "es", "it"))
    table = score(items, seen=["en", "es"], zero_shot=["fr"], joined=["it"], bootstrap=0)
    groups = [f"{g}, {kind}" for g in ("seen", "joined", "zero-shot", "all")
              for kind in ("pooled", "mean of languages")]  # fmt: skip
    assert [row.name for row in table.rows] == ["en", "es", "it", "fr", *groups]
    assert [row.group for row in table.rows[:4]] == ["seen", "seen", "joined", "zero-shot"]
    mean = (table.row("en").bleu.value + table.row("es").bleu.value) / 2
    assert table.row("seen, mean of languages").bleu.value == pytest.approx(mean)
    seen_only = score([item for item in items if item.language in ("en", "es")], bootstrap=0)
    assert table.row("seen, pooled").bleu == seen_only.row("all, pooled").bleu
    both = score(make(["fr"]) + make(["fr"], target="de"), bootstrap=0)  # no pool across targets
    assert [row.name for row in both.rows] == ["fr→de", "fr→en", "all, mean of languages"]


def test_the_seed_is_sacrebleus_and_in_the_signature(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    first, again = (score(make(["fr"]), bootstrap=50) for _ in range(2))
    monkeypatch.setenv("SACREBLEU_SEED", "2")
    second = score(make(["fr"]), bootstrap=50)
    assert first == again and first.row("fr").bleu.low != second.row("fr").bleu.low
    assert "seed:1|" in first.row("fr").bleu.signature


def test_bad_input_is_reported_at_once():
    refused("no predictions", score, [])
    bare = [replace(item, reference=None) for item in make(["fr"], count=2)]
    refused("both seen and joined: fr", score, make(["fr"]), seen=["fr"], joined=["fr"])
    caught = refusal(score, bare, seen=["fr"], zero_shot=["fr"])
    assert len(caught.problems) == 2 and "fr-0, fr-1" in str(caught)
    with pytest.raises(InputError, match="tokeniser 'words'.*13a"):
        score(make(["fr"]), convention=Convention(tokenizers={"en": "words"}))
    for language, package in (("ja", "MeCab"), ("ko", "mecab_ko")):
        if importlib.util.find_spec(package) is None:
            with pytest.raises(InputError, match=r"pip install 'sacrebleu\[ja,ko\]'"):
                score(make(["fr"], target=language), bootstrap=0)


def test_resamples_that_are_partly_zero_still_have_an_interval():
    """One good sentence among bad ones: some resamples of the corpus score exactly 0. sacrebleu's
    mean ± half width reaches below 0, where what is shown ends; JSON keeps it."""
    items = [replace(i, prediction="a") for i in make(["fr"])[1:]] + make(["fr"], 1, noise=0)
    bleu = score(items, bootstrap=200).row("fr").bleu
    assert bleu.low < 0 < bleu.high and bleu.interval_text().startswith("0.0 – ")
    broken = [replace(item, prediction=item.prediction.replace(" ", "\n")) for item in items]
    assert score(broken, bootstrap=200).row("fr").bleu == bleu  # line breaks are spaces


@pytest.mark.parametrize(
    ("language", "said", "written", "rate", "expected", "signature"),
    [
        # One substitution in five words; case, punctuation and "colour" do not count.
        ("en", "The colour, it's two!", "the color it is one", {}, 100 / 5, "norm:whisper-english"),
        ("en", "Colour two", "color 2", {"english": False}, 100, "norm:whisper-basic"),
        ("zh", "请输入号码", "请输出号码。", {}, 100 / 5, "|spaces:deleted"),
        ("yue", "请输入号码", "请输出号码。", {}, 100 / 5, "|spaces:deleted"),
        # A comma is no character; where spaces are counted, it becomes one.
        ("zh", "请输，入号码", "请输出号码。", {}, 100 / 5, "|spaces:deleted"),
        ("zh", "请输，入号码", "请输出号码。", {"count_spaces": True}, 200 / 6, "|spaces:counted"),
        # Words that differ in a vowel sign: दिन, day; दीन, poor.
        ("hi", "दिन है", "दीन है", {}, 50, "|marks:kept|jiwer"),
        ("hi", "दिन है", "दीन है", {"keep_marks": False}, 0, "|marks:removed|jiwer"),
    ],
)
def test_error_rates(language, said, written, rate, expected, signature):
    item = Prediction("1", language, "x", language, said, written)
    convention = Convention(error_rate=ErrorRate(**rate))
    scores = score([item], bootstrap=0, convention=convention).row(language).scores
    found = scores["CER" if language in ("zh", "yue") else "WER"]
    assert found.value == pytest.approx(expected) and signature in found.signature


RATED = Convention(error_rate=ErrorRate())


def test_which_rows_have_an_error_rate():
    """Those that transcribe and those that tell what they heard; no corpus that mixes others in."""
    table = score(make(["en", "fr"]), bootstrap=0, convention=RATED)
    assert [row.name for row in table.rows if "WER" in row.scores] == ["en"]
    assert "WER" not in score(make(["en"]), bootstrap=0).columns
    told = Prediction("1", "fr", "x", "en", "good day", "good day", 1, "bon jour", "bon jour")
    silent = replace(told, key="2", heard=None)
    found = score([told, silent], bootstrap=0, convention=RATED).row("fr").scores["WER"]
    assert found.value == pytest.approx(50) and found.signature.endswith("|not told:1")
    items = make(["en"], count=2)
    empty = Prediction("3", "en", "x", "en", "—!", "hello")  # after the normaliser
    plain, found = (
        score(rows, bootstrap=0, convention=RATED).row("en").scores["WER"]
        for rows in (items, [*items, empty])
    )
    assert found.value == plain.value
    assert found.signature == f"{plain.signature}|empty references left out:1"


@pytest.mark.parametrize(
    ("name", "tokenizers", "characters", "words"),
    [
        ("potsa", "zh:zh yue:zh ja:ja-mecab ko:ko-mecab de:13a km:char", "zh ja ko yue", "en fr"),
        ("cot-st", "zh:zh yue:13a ja:ja-mecab ko:13a th:13a", "", "zh ja ko"),
        ("llm-srt", "zh:char yue:char ja:char ko:char km:13a", "zh ja ko th yue", "lo my km en"),
        ("part", "zh:char ja:char ko:13a sv:13a", "zh ja ko yue", "th en"),
        ("seamless", "zh:char ja:char ko:13a yue:13a my:char", "zh ja th lo my", "ko yue km en"),
    ],
)
def test_presets(name, tokenizers, characters, words):
    preset = find_preset(name)
    expected = dict(pair.split(":") for pair in tokenizers.split())
    assert {code: preset.tokenizer(code) for code in expected} == expected
    assert {preset.tokenizer(code) for code in ("zh-CN", "zh_tw", "cmn")} == {expected["zh"]}
    assert {preset.error_rate.unit(code) for code in characters.split()} <= {"CER"}
    assert {preset.error_rate.unit(code) for code in words.split()} == {"WER"}
    refused(f"found '{name}s', expected one of potsa, potsa_cased", find_preset, f"{name}s")


def test_spbleu_without_its_model_says_where_to_put_it(tmp_path, monkeypatch):
    from sacrebleu.tokenizers import tokenizer_spm

    def no_network(url):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(InputError, match="'flores200'.*no network.*downloads.*SACREBLEU"):
        score(make(["fr"]), convention=find_preset("llm-srt"))


def with_losses(values, copies=1, ids=True, shift=0.0):
    """`values[i]` is the loss of sentence i, in each of `copies` recordings."""
    texts = "en", "you have ten messages", "you have ten"
    return [
        Prediction(f"{copy}-{i}", "it", "a.wav", *texts, sentence_id=sentence, cross_entropy=loss)
        for copy in range(copies)
        for i, loss in enumerate(value + shift for value in values)
        for sentence in [f"s{i}" if ids else None]
    ]


VALUES = np.random.default_rng(1).normal(1.0, 0.3, 60).tolist()


@pytest.mark.parametrize(
    ("how", "wider"), [({}, 1), ({"copies": 4}, 1), ({"copies": 4, "ids": False}, 0.5)]
)
def test_the_interval_is_that_of_the_mean_of_independent_sentences(how, wider):
    """Recordings of one sentence say nothing new; without ids each is a sentence."""
    found = cross_entropy(with_losses(VALUES, **how), 20_000)["CE"]
    error = wider * 1.96 * np.std(VALUES) / len(VALUES) ** 0.5
    assert (found.low + found.high) / 2 == pytest.approx(np.mean(VALUES), abs=0.005)
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize(("shift", "significant"), [(-0.1, True), (0.0, False)])
def test_two_systems_are_compared_sentence_by_sentence(shift, significant):
    noise = np.random.default_rng(2).normal(0, 0.1, len(VALUES))
    system = with_losses([v + n for v, n in zip(VALUES, noise, strict=True)], shift=shift)
    table = score(system, baseline=with_losses(VALUES), bootstrap=100, samples=100)
    found = table.row("it").against["CE"]
    assert found.difference == pytest.approx(shift + noise.mean())
    assert (found.p_value < 0.05) == significant
    cells = table.text()
    assert f"{found.system:.3f}" in cells and f"{found.difference:+.3f}" in cells


def test_where_a_prediction_has_no_loss_the_column_is_left_out():
    english, other = (
        with_losses(VALUES),
        [replace(r, key=f"fr {r.key}", language="fr") for r in with_losses(VALUES)],
    )
    other[0] = replace(other[0], cross_entropy=None)
    table = score([*english, *other], baseline=[*english, *other], bootstrap=0, samples=2)
    assert [row.name for row in table.rows if "CE" in row.scores] == ["it"]
    assert [row.name for row in table.rows if "CE" in row.against] == ["it"]
    assert "difference" in table.text()  # with an empty cell
