import importlib.util
import json
import os
import random
import re
import subprocess
import sys

import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import Convention, score
from slam_potsa.evaluation.significance import compare

WORDS = [
    "please",
    "enter",
    "your",
    "mailbox",
    "number",
    "followed",
    "by",
    "the",
    "pound",
    "key",
    "Goodbye.",
    "new",
    "messages",
]


def make(languages=("en", "es", "fr"), count=12, noise=0.3, seed=0, target="en"):
    """Random sentences, each word replaced with probability `noise`."""
    rng = random.Random(seed)
    made = []
    for language in languages:
        for number in range(count):
            reference = " ".join(random.Random(number).choices(WORDS, k=6))
            words = [w if rng.random() > noise else rng.choice(WORDS) for w in reference.split()]
            key = f"{language}-{number}"
            made.append(Prediction(key, language, "x.flac", target, reference, " ".join(words)))
    return made


def command_line(tmp_path, items, *arguments):
    """What `python -m sacrebleu` says about the same sentences, as JSON."""
    (tmp_path / "ref").write_text("".join(f"{item.reference}\n" for item in items))
    (tmp_path / "hyp").write_text("".join(f"{item.prediction}\n" for item in items))
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "ref", "-i", tmp_path / "hyp"]
    command += ["-m", "bleu", "chrf", "-f", "json", "-w", "8", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "SACREBLEU_SEED"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def test_scores_intervals_and_signatures_equal_the_command_line(tmp_path):
    items = make(["fr"], count=30)
    row = score(items, bootstrap=1000).row("fr")
    bleu, chrf = command_line(tmp_path, items, "--confidence")
    for ours, theirs in ((row.bleu, bleu), (row.chrf, chrf)):
        assert ours.value == pytest.approx(theirs["score"], abs=1e-7)
        # The command line adds resampled scores up in float32, we in float64.
        assert ours.mean == pytest.approx(theirs["confidence_mean"], rel=1e-6)
        assert ours.half_width == pytest.approx(theirs["confidence_var"], rel=1e-6)
        assert ours.signature == theirs["signature"]


def test_chinese_and_lowercase_equal_the_command_line(tmp_path):
    pairs = [("请输入您的邮箱号码。", "请输入您邮箱的号码。"), ("再见 ABC", "再见 abc")]
    items = [Prediction(str(n), "fr", "x", "zh", r, p) for n, (r, p) in enumerate(pairs)]
    row = score(items, bootstrap=0, convention=Convention(lowercase=True)).row("fr")
    bleu, chrf = command_line(
        tmp_path, items, "--tokenize", "zh", "--lowercase", "--chrf-lowercase"
    )
    assert row.bleu.value == pytest.approx(bleu["score"], abs=1e-7)
    assert row.chrf.value == pytest.approx(chrf["score"], abs=1e-7)
    assert "tok:zh" in row.bleu.signature and "case:lc" in row.bleu.signature


def test_perfect_and_hopeless_translations():
    perfect = [Prediction(**vars(item) | {"prediction": item.reference}) for item in make()]
    hopeless = [Prediction(**vars(item) | {"prediction": ""}) for item in make()]
    best, worst = score(perfect, bootstrap=100).row, score(hopeless, bootstrap=100).row
    for name in ("en", "all, pooled", "all, mean of languages"):
        assert best(name).bleu.value == pytest.approx(100)
        assert worst(name).bleu.value == worst(name).chrf.value == 0
    assert best("en").bleu.low == pytest.approx(100)
    assert (worst("en").bleu.low, worst("en").bleu.high) == (0, 0)


def test_groups_pool_sentences_and_average_languages():
    items = make(("fr", "en", "es"))
    table = score(items, seen=["en", "es"], zero_shot=["fr"], bootstrap=0)
    assert [(row.name, row.group) for row in table.rows] == [
        ("en", "seen"),
        ("es", "seen"),
        ("fr", "zero-shot"),
        ("seen, pooled", "seen"),
        ("seen, mean of languages", "seen"),
        ("zero-shot, pooled", "zero-shot"),
        ("zero-shot, mean of languages", "zero-shot"),
        ("all, pooled", "all"),
        ("all, mean of languages", "all"),
    ]
    mean = (table.row("en").bleu.value + table.row("es").bleu.value) / 2
    assert table.row("seen, mean of languages").bleu.value == pytest.approx(mean)
    seen_only = score([item for item in items if item.language != "fr"], bootstrap=0)
    assert table.row("seen, pooled").bleu == seen_only.row("all, pooled").bleu
    assert table.row("seen, mean of languages").bleu.low is None
    assert table.row("all, pooled").sentences == 36


def test_no_pool_across_target_languages():
    table = score(make(["fr"]) + make(["fr"], target="de"), bootstrap=0)
    assert [row.name for row in table.rows] == ["fr→de", "fr→en", "all, mean of languages"]


def test_the_seed_is_in_the_signature_and_leaves_the_environment_alone(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    first, second = (score(make(), bootstrap=50, seed=seed) for seed in (1, 2))
    assert first == score(make(), bootstrap=50, seed=1)
    assert first.row("fr").bleu.mean != second.row("fr").bleu.mean
    assert "seed:1|" in first.row("fr").bleu.signature
    assert os.environ["SACREBLEU_SEED"] == "7"
    monkeypatch.delenv("SACREBLEU_SEED")
    score(make(), bootstrap=50)
    assert "SACREBLEU_SEED" not in os.environ


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("en", "13a"), ("zh", "zh"), ("zh-CN", "zh"), ("zh_tw", "zh"), ("yue", "zh"), ("th", "char"),
     ("ja", "ja-mecab"), ("ko", "ko-mecab"), ("de", "13a")],
)  # fmt: skip
def test_the_tokeniser_follows_the_target_language(language, tokenizer):
    assert Convention().tokenizer(language) == tokenizer


@pytest.mark.parametrize(("language", "package"), [("ja", "MeCab"), ("ko", "mecab_ko")])
def test_a_tokeniser_that_is_not_installed_is_named(language, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(InputError, match=rf"pip install 'sacrebleu\[{language}\]'"):
        score(make(["fr"], target=language), bootstrap=0)


def test_bad_input_is_reported_at_once():
    with pytest.raises(InputError, match="no predictions"):
        score([])
    bare = [Prediction(**vars(item) | {"reference": None}) for item in make(["fr"], count=2)]
    with pytest.raises(InputError) as caught:
        score(bare, seen=["fr"], zero_shot=["fr"])
    assert len(caught.value.problems) == 2 and "fr-0, fr-1" in str(caught.value)
    with pytest.raises(InputError, match="tokeniser 'words'.*13a"):
        score(make(["fr"]), convention=Convention(tokenizers={"en": "words"}))


def test_the_table_prints_aligned_with_its_signatures():
    table = score(make(), seen=["en"], bootstrap=50)
    lines = table.text().splitlines()
    ends = {line.index(value) + len(value) for line, value in zip(
        lines[1:4], [f"{row.bleu.value:.1f}" for row in table.rows], strict=False
    )}  # fmt: skip
    assert ends == {lines[0].index("BLEU") + 4}
    assert lines[-2] == f"BLEU|{table.row('en').bleu.signature}" and lines[-1].startswith("chrF|")
    assert json.loads(json.dumps(table.as_dict()))["rows"][0]["bleu"]["score"] > 0
    with pytest.raises(KeyError, match="there are en"):
        table.row("xx")


def test_paired_bootstrap_equals_the_command_line(tmp_path):
    baseline, system = make(noise=0.5, seed=1), make(noise=0.3, seed=2)
    (tmp_path / "ref").write_text("".join(f"{item.reference}\n" for item in baseline))
    for name, items in (("base", baseline), ("new", system)):
        (tmp_path / name).write_text("".join(f"{item.prediction}\n" for item in items))
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "base", "new", "-m", "bleu", "chrf"]
    # Not as JSON, as above: sacrebleu 2.6.0 fails to write its own numpy numbers there.
    command += ["--paired-bs", "--paired-bs-n", "200", "-w", "8", "-f", "text"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    values = [float(value) for value in re.findall(r"(\d+\.\d{8}) \(", done.stdout)]
    chances = [float(value) for value in re.findall(r"\(p = ([\d.]+)\)", done.stdout)]
    bleu, chrf = compare(baseline, system[::-1], samples=200)
    assert (bleu.metric, chrf.metric) == ("BLEU", "chrF2")
    ours = [bleu.baseline, chrf.baseline, bleu.system, chrf.system]
    assert ours == pytest.approx(values, abs=1e-6)
    assert [bleu.p_value, chrf.p_value] == pytest.approx(chances, abs=1e-4)
    assert bleu.difference == bleu.system - bleu.baseline > 0


def test_a_system_is_not_better_than_itself():
    for test in ("bs", "ar"):
        bleu, _ = compare(make(), make(), test=test, samples=100)
        assert bleu.difference == 0 and bleu.p_value == 1


def test_only_the_same_utterances_can_be_compared():
    with pytest.raises(InputError) as caught:
        compare(make(["fr"], count=3), make(["fr"], count=2) + make(["es"], count=1))
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="expected one; compare each apart"):
        both = make(["fr"]) + make(["fr"], target="de")
        compare(both, both)
    with pytest.raises(InputError, match="expected 'bs'"):
        compare(make(), make(), test="t")


def test_resamples_that_are_partly_zero_still_have_an_interval():
    """One good sentence among bad ones: some resamples of the corpus score exactly 0."""
    texts = [("please hold the line now", "please hold the line now"), ("a", "b"), ("c", "d")]
    predictions = [
        Prediction(str(i), "fr", "a.wav", "en", reference, prediction)
        for i, (reference, prediction) in enumerate(texts)
    ]
    bleu = score(predictions, bootstrap=200).row("fr").bleu
    assert 0 < bleu.mean < 100
