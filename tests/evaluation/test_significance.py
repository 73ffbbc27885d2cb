import re
import subprocess
import sys
from dataclasses import replace

import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.significance import compare, compare_corpora, comparisons_text, match
from tests.support.predictions import make


@pytest.mark.parametrize(("test", "interval"), [("bs", True), ("ar", False)])
def test_paired_tests_equal_the_command_line(tmp_path, test, interval):
    baseline, system = make(noise=0.5, seed=1), make(noise=0.3, seed=2)
    (tmp_path / "ref").write_text("".join(f"{item.reference}\n" for item in baseline))
    for name, items in (("base", baseline), ("new", system)):
        (tmp_path / name).write_text("".join(f"{item.prediction}\n" for item in items))
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "base", "new", "-m", "bleu", "chrf"]
    # Not as JSON: sacrebleu 2.6.0 fails to write its own numpy numbers of a paired test there.
    command += [f"--paired-{test}", f"--paired-{test}-n", "200", "-w", "8", "-f", "text"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    values = [float(value) for value in re.findall(r"(\d+\.\d{8})(?= \()", done.stdout)]
    if not interval:  # the baseline's line has no parenthesis there
        values = [float(value) for value in re.findall(r"(?<!\()\b(\d+\.\d{8})\b", done.stdout)]
    chances = [float(value) for value in re.findall(r"\(p = ([\d.]+)\)", done.stdout)]
    bleu, chrf = compare(baseline, system[::-1], test=test, samples=200)
    assert (bleu.metric, chrf.metric) == ("BLEU", "chrF2")
    assert f"{test}:200|seed:12345" in bleu.signature
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


def test_each_language_and_each_group_is_compared():
    baseline, system = make(noise=0.6, seed=1), make(noise=0.1, seed=2)
    found = compare_corpora(
        baseline[::-1], system, seen=["en", "es"], zero_shot=["fr"], test="ar", samples=50
    )
    names = ["en", "es", "fr", "seen, pooled", "zero-shot, pooled", "all, pooled"]
    assert [item.name for item in found] == [name for name in names for _ in range(2)]
    pooled = next(item for item in found if item.name == "seen, pooled")
    alone = compare(
        [item for item in baseline if item.language != "fr"],
        [item for item in system if item.language != "fr"],
        test="ar",
        samples=50,
    )[0]
    assert pooled == replace(alone, name="seen, pooled")
    lines = comparisons_text(found, "ar").splitlines()
    assert lines[0].split()[:3] == ["system", "against", "baseline"] and len(lines) == 1 + 6 + 3
    assert "approximate randomisation" in lines[7] and lines[8].startswith("BLEU|")


def test_a_clear_difference_is_significant_and_a_small_one_is_not():
    good, bad = make(count=40, noise=0.05, seed=1), make(count=40, noise=0.7, seed=2)
    for test in ("bs", "ar"):
        assert compare(bad, good, test=test, samples=200)[0].p_value < 0.01


@pytest.mark.parametrize(("changed", "least"), [(0, 1), (1, 1), (2, 1 / 2), (5, 1 / 16)])
def test_few_differing_sentences_are_never_significant(changed, least):
    """sacrebleu alone says p = 1 / (samples + 1) of these, since all trials tie or fall below."""
    system = make(count=40, noise=0.1)
    worse = [replace(item, prediction="") for item in system[:changed]] + system[changed:]
    for found in compare(system, worse, test="ar", samples=200):
        assert found.changed == changed and found.p_value >= least


def test_the_default_number_of_samples_is_sacrebleus():
    items = make(["fr"], count=4)
    assert "bs:1000|" in compare(items, items)[0].signature
    assert "ar:10000|" in compare(items, items, test="ar")[0].signature


def test_a_wrong_file_is_one_short_message():
    with pytest.raises(InputError) as caught:
        match(make(["fr"], count=500), make(["es"], count=500), ("the first", "the second"))
    assert len(caught.value.problems) == 2 and len(str(caught.value)) < 600
    assert "500 utterances are decoded by the first only: 'fr-0'" in caught.value.problems[0]
    other = [replace(item, reference="other") for item in make(["fr"], count=2)]
    with pytest.raises(InputError, match="2 utterances are with two references"):
        match(make(["fr"], count=2), other)
