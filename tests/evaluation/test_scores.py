import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation import error_rate
from slam_potsa.evaluation.corpus_score import Score
from slam_potsa.evaluation.error_rate import normalized
from slam_potsa.evaluation.presets import Convention, ErrorRate
from slam_potsa.evaluation.scores import score
from tests.support.predictions import command_line, make


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


def test_the_seed_is_sacrebleus_and_in_the_signature(monkeypatch):
    assert "seed:12345|" in score(make(), bootstrap=50).row("fr").bleu.signature
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    first, again = (score(make(), bootstrap=50) for _ in range(2))
    monkeypatch.setenv("SACREBLEU_SEED", "2")
    second = score(make(), bootstrap=50)
    assert first == again and first.row("fr").bleu.mean != second.row("fr").bleu.mean
    assert "seed:1|" in first.row("fr").bleu.signature


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


def test_resamples_that_are_partly_zero_still_have_an_interval():
    """One good sentence among bad ones: some resamples of the corpus score exactly 0."""
    texts = [("please hold the line now", "please hold the line now"), ("a", "b"), ("c", "d")]
    predictions = [
        Prediction(str(i), "fr", "a.wav", "en", reference, prediction)
        for i, (reference, prediction) in enumerate(texts)
    ]
    bleu = score(predictions, bootstrap=200).row("fr").bleu
    assert 0 < bleu.mean < 100


def test_a_shown_interval_ends_where_the_scale_does():
    """sacrebleu's mean ± half width reaches below 0 here; JSON keeps it."""
    items = [replace(i, prediction="a") for i in make(["fr"])[1:]] + make(["fr"], 1, noise=0)
    bleu = score(items, bootstrap=200).row("fr").bleu
    assert bleu.low < 0 and bleu.interval_text().startswith("0.0 – ")
    assert bleu.as_dict()["interval_95"] == [bleu.mean - bleu.half_width, bleu.high]
    assert Score(99.0, 99.0, 1.5).interval_text() == "97.5 – 100.0"
    assert Score(0.1, 0.01, 0.05).interval_text() == "0.0 – 0.1"
    assert Score(50.0, 50.0, 1.0).interval_text() == "49.0 – 51.0"
    assert Score(1.0).interval_text() == ""


def test_line_breaks_score_as_on_one_line():
    """A file of lines could not hold them, and would give another score than this."""
    broken = [replace(item, prediction=item.prediction.replace(" ", "\n")) for item in make()]
    for target in ("en", "th"):
        items = [replace(item, target_language=target) for item in broken]
        whole = [replace(item, prediction=item.prediction.replace("\n", " ")) for item in items]
        assert score(items, bootstrap=0).rows == score(whole, bootstrap=0).rows


def test_further_bleu_columns_have_intervals_and_signatures():
    convention = Convention(more_bleu={"BLEU char": "char"}, chrf_word_order=2)
    table = score(make(), bootstrap=50, convention=convention)
    row = table.row("fr")
    assert list(row.scores) == ["BLEU", "chrF++", "BLEU char"]
    assert "tok:char" in row.more["BLEU char"].signature and row.more["BLEU char"].low is not None
    mean = table.row("all, mean of languages").more["BLEU char"].value
    values = [table.row(name).more["BLEU char"].value for name in ("en", "es", "fr")]
    assert mean == pytest.approx(sum(values) / 3)
    text = table.text()
    assert text.splitlines()[0].count("95 % interval") == 3
    assert "\nBLEU char|nrefs:1" in text and "\nchrF++|nrefs:1" in text


class TestErrorRate:
    """WER and CER of rows that transcribe. jiwer and whisper_normalizer are optional."""

    convention = Convention(error_rate=ErrorRate())

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("jiwer")
        pytest.importorskip("whisper_normalizer")

    def rate(self, language, reference, prediction, convention=None):
        item = Prediction("1", language, "x", language, reference, prediction)
        return score([item], bootstrap=0, convention=convention or self.convention).row(language)

    def test_words_after_the_english_normaliser(self):
        """One substitution in five words; case, punctuation and "colour" do not count."""
        row = self.rate("en", "The colour, it's two!", "the color it is one")
        assert row.more["WER"].value == pytest.approx(100 / 5)
        assert row.more["WER"].signature.startswith("norm:whisper-english 0.")

    def test_the_basic_normaliser_leaves_spelling_and_numbers_alone(self):
        convention = Convention(error_rate=ErrorRate(english=False))
        row = self.rate("en", "Colour two", "color 2", convention)
        assert row.more["WER"].value == pytest.approx(100)
        assert "norm:whisper-basic" in row.more["WER"].signature

    @pytest.mark.parametrize("language", ["zh", "ja", "ko", "th", "lo", "my", "km", "yue"])
    def test_languages_counted_in_characters(self, language):
        assert ErrorRate().unit(language) == "CER"
        if language in ("zh", "yue"):
            more = self.rate(language, "请输入号码", "请输出号码。").more
            assert more["CER"].value == pytest.approx(100 / 5)

    def test_punctuation_is_no_character_of_cer(self):
        """One of five characters is wrong; a comma would become a sixth, a space."""
        found = self.rate("zh", "请输，入号码", "请输出号码。").more["CER"]
        assert found.value == pytest.approx(100 / 5) and "|spaces:deleted" in found.signature
        counted = Convention(error_rate=ErrorRate(count_spaces=True))
        found = self.rate("zh", "请输，入号码", "请输出号码。", counted).more["CER"]
        assert found.value == pytest.approx(100 * 2 / 6) and "|spaces:counted" in found.signature

    def test_words_that_differ_in_a_vowel_sign_differ(self):
        """दिन, day; दीन, poor."""
        found = self.rate("hi", "दिन है", "दीन है").more["WER"]
        assert found.value == pytest.approx(50) and "|marks:kept|" in found.signature
        assert "spaces" not in found.signature
        removed = Convention(error_rate=ErrorRate(keep_marks=False))
        found = self.rate("hi", "दिन है", "दीन है", removed).more["WER"]
        assert found.value == 0 and "|marks:removed|" in found.signature

    def test_the_normaliser_is_whispers(self):
        """The same as the one that transformers ships."""
        from transformers.models.whisper.english_normalizer import BasicTextNormalizer

        text = "Él dijo: «¡Hola!» (ríe) [ruido] Straße №5"
        item = Prediction("1", "es", "x", "es", text, text)
        ours = normalized([item], ErrorRate()).references[0]
        assert ours == BasicTextNormalizer()(text).strip() and ours

    def test_translations_have_none_and_groups_of_both_neither(self):
        items = make(["en", "fr"])
        table = score(items, bootstrap=0, convention=self.convention)
        assert list(table.row("en").more) == ["WER"] and not table.row("fr").more
        assert not table.row("all, pooled").more
        assert not table.row("all, mean of languages").more
        assert not score(items, bootstrap=0).row("en").more

    def test_what_chain_of_thought_heard_is_scored(self):
        told = Prediction("1", "fr", "x", "en", "good day", "good day", 1, "bon jour", "bon jour")
        silent = replace(told, key="2", heard=None)
        row = score([told, silent], bootstrap=0, convention=self.convention).row("fr")
        assert row.more["WER"].value == pytest.approx(50)
        assert row.more["WER"].signature.endswith("|not told:1")

    def test_references_that_become_empty_are_left_out_and_counted(self):
        items = make(["en"], count=2) + [Prediction("3", "en", "x", "en", "—!", "hello")]
        found = score(items, bootstrap=0, convention=self.convention).row("en").more["WER"]
        assert (
            found.value
            == score(items[:2], bootstrap=0, convention=self.convention).row("en").more["WER"].value
        )
        assert found.signature.endswith("|empty references left out:1")

    def test_what_is_not_installed_is_named(self, monkeypatch):
        monkeypatch.setattr(error_rate, "find_spec", lambda name: None)
        with pytest.raises(InputError, match="pip install jiwer whisper_normalizer.*--no-wer"):
            score(make(["en"]), bootstrap=0, convention=self.convention, guards=False)


def pieces_model(folder):
    """A tiny SentencePiece model where sacrebleu keeps that of flores200."""
    spm = pytest.importorskip("sentencepiece")
    (folder / "models").mkdir(exist_ok=True)
    sentences = iter(item.reference for item in make(count=40))
    path = folder / "models" / "flores200sacrebleuspm"
    with path.open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=file,
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    return path


SPBLEU = Convention(more_bleu={"spBLEU": "flores200"})


def test_spbleu_equals_the_command_line(tmp_path, monkeypatch):
    from sacrebleu.tokenizers import tokenizer_spm

    pieces_model(tmp_path)
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    items = make(["fr"])
    row = score(items, bootstrap=0, convention=SPBLEU).row("fr")
    bleu, _ = command_line(tmp_path, items, "--tokenize", "flores200")
    assert row.more["spBLEU"].value == pytest.approx(bleu["score"], abs=1e-7)
    assert row.more["spBLEU"].signature == bleu["signature"]
    assert "tok:flores200" in bleu["signature"] and row.more["spBLEU"].value != row.bleu.value


def test_spbleu_without_its_model_says_where_to_put_it(tmp_path, monkeypatch):
    import urllib.error
    import urllib.request

    from sacrebleu.tokenizers import tokenizer_spm

    def no_network(url):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(InputError, match="no network.*models/flores200sacrebleuspm.*--no-spbleu"):
        score(make(["fr"]), convention=SPBLEU)
    (tmp_path / "models" / "flores200sacrebleuspm").write_bytes(b"broken")
    with pytest.raises(InputError, match="flores200.*cannot be loaded"):
        score(make(["fr"]), convention=SPBLEU)


def test_scores_are_those_of_a_fresh_process(tmp_path):
    """No state of sacrebleu's (seed, cached references) leaks from one corpus into the next."""
    items = make()
    table = score(items, bootstrap=50)
    code = (
        "from tests.support.predictions import make\n"
        "from slam_potsa.evaluation.scores import score\n"
        "items = [item for item in make() if item.language == 'fr']\n"
        "print(repr(score(items, bootstrap=50, guards=False).row('fr').bleu))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(table.row("fr").bleu)
