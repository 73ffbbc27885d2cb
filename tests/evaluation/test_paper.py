import copy
import dataclasses
import json
from functools import cache, reduce

import pytest
import yaml

from slam_potsa.cli import main
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.predictions import read_predictions, write_predictions
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.evaluation.paper import PAPER_TABLES, TESTS, fill_table
from slam_potsa.evaluation.scores import over_seeds, score
from slam_potsa.evaluation.text_metrics import PRESETS, Convention
from tests.support import refusal
from tests.support.predictions import make

SEEN, AVERAGE, ZERO_AVERAGE = TESTS["test"].languages, "avg.", "zero-shot avg."
ZH = Convention(tokenizers={"zh": "zh"})


@cache
def composed(name):
    known = (conf_dir() / "experiment" / f"{name}.yaml").is_file()
    return dataclasses.asdict(compose_config([f"experiment={name}"] if known else []))


def run(folder, name, seed=42, noise=0.2, tests=("test", "zero_shot"), options=(), **train):
    """A run directory as a training and two decodings leave it.

    options: (dotted key, value) pairs that are not as the experiment has them. train: the same, of
    train_config.
    """
    folder.mkdir(parents=True)
    config = copy.deepcopy(composed(name))
    config["train_config"] |= {"model_name": name, "seed": seed, **train}
    config["dataset_config"]["seed"] = seed
    for key, value in options:
        *sections, last = key.split(".")
        reduce(lambda tree, section: tree[section], sections, config)[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for test in tests:
        made = make(TESTS[test].languages, 8, noise, seed, target="zh")
        write_predictions(folder / f"{test}_predictions.jsonl", made)
    return folder


def row(table, system):
    return next(row for row in table.rows if row.system == system)


def problems(number, *runs):
    return refusal(fill_table, number, runs).problems


def test_the_papers_tables_agree_with_each_other_and_with_its_claims():
    for paper in PAPER_TABLES[1].rows:
        mean = sum(paper.paper[language][0] for language in SEEN) / len(SEEN)
        assert paper.paper[AVERAGE][0] == pytest.approx(mean, abs=0.006), paper.label
    ours = {number: row(PAPER_TABLES[number], "table1_ours") for number in (1, 2, 3)}
    assert {each.paper[AVERAGE][0] for each in ours.values()} == {31.84}
    baseline = row(PAPER_TABLES[1], "table1_baseline")
    gains = [ours[1].paper[c][0] - baseline.paper[c][0] for c in (AVERAGE, ZERO_AVERAGE)]
    assert gains == pytest.approx([1.29, 2.93])
    names = {path.stem for path in (conf_dir() / "experiment").glob("table*.yaml")}
    names |= {path.stem for path in (conf_dir() / "experiment").glob("ai_sta*.yaml")}
    tables = [table for name, table in PAPER_TABLES.items() if not str(name).startswith("part")]
    systems = {row.system for table in tables for row in table.rows}
    # Tables 2 and 3 have a name of their own for table1_ours.
    assert names == systems - {None} | {"table2_ot", "table3_ucb_lower"}


def test_one_seed_has_sacrebleus_scores(tmp_path):
    folder = run(tmp_path / "ours", "table1_ours")
    filled = fill_table(1, [folder])
    ours = row(filled, "table1_ours")
    seen, zero = (
        score(read_predictions(folder / f"{test}_predictions.jsonl"), bootstrap=0, convention=ZH)
        for test in ("test", "zero_shot")
    )
    assert ours.figures["ko"].value == seen.row("ko").bleu.value
    mean = sum(seen.row(language).bleu.value for language in SEEN) / 5
    assert ours.figures[AVERAGE].value == pytest.approx(mean)
    expected = zero.row("all, mean of languages").bleu.value
    assert ours.figures[ZERO_AVERAGE].value == pytest.approx(expected)
    assert "Student-t" not in filled.text()
    labels = [paper.label for paper in PAPER_TABLES[1].rows]  # rows without runs too, in its order
    lines = filled.text().splitlines()
    assert [line.split("  ")[0] for line in lines if " paper " in line] == labels


def test_seeds_have_their_mean_and_t_interval(tmp_path):
    for seed, noise in ((1, 0.1), (2, 0.3), (3, 0.5), (4, 0.5)):
        run(tmp_path / f"mse{seed}", "table2_mse", seed, noise)
    filled = fill_table(2, [tmp_path])
    mse = row(filled, "table2_mse")
    averages = [
        score(read_predictions(path), bootstrap=0).row("all, mean of languages").bleu.value
        for path in sorted(tmp_path.glob("mse*/test_predictions.jsonl"))
    ]
    mean = over_seeds(averages)
    assert mse.seeds == [1, 2, 3, 4] and mse.figures[AVERAGE] == mean
    for piece in (f"{mean.value:.2f} ±{mean.high - mean.value:.2f}", "Student-t"):
        assert piece in filled.text()


def test_the_names_of_one_system_fill_one_row(tmp_path):
    run(tmp_path / "a", "table2_ot", seed=1)
    run(tmp_path / "b", "table3_ucb_lower", seed=2)
    run(tmp_path / "recipe" / "3_potsa", "table1_ours", seed=3)
    (tmp_path / "recipe" / "2_s2tt").mkdir()
    (tmp_path / "recipe" / "2_s2tt" / "config.yaml").write_text("not: read")
    for number in (1, 2, 3):
        assert row(fill_table(number, [tmp_path]), "table1_ours").seeds == [1, 2, 3]


def test_what_was_not_decoded_stays_empty(tmp_path):
    folder = run(tmp_path / "a", "table2_mse", tests=())
    assert "slam-potsa decode" in problems(2, folder)[0]
    made = make(["en", "ja", "fr"], target="zh")
    write_predictions(folder / "test_predictions.jsonl", made)
    filled = fill_table(2, [folder])
    assert not row(filled, "table2_mse").figures
    assert "no es, ko, ru, so there is no average" in filled.text()
    folder = run(tmp_path / "b", "table1_ours", tests=("test",))
    filled = fill_table(1, [folder])
    assert set(row(filled, "table1_ours").figures) == {*SEEN, AVERAGE}
    assert "zero_shot_predictions.jsonl: missing; decode it" in filled.text()


def test_the_command_prints_text_and_json(tmp_path, capsys):
    folder = str(run(tmp_path / "a", "table1_ours"))
    place = str(tmp_path / "t.json")
    assert main(["table", "1", folder, "--json", place]) == 0
    text = capsys.readouterr().out
    assert text.startswith("POTSA Table 1") and "40.87" in text and "tok:zh" in text
    content = json.loads((tmp_path / "t.json").read_text())
    ours = next(row for row in content["rows"] if row["system"] == "table1_ours")
    assert ours["paper"]["en"] == [40.87] and ours["seeds"] == [42]
    assert f"{ours['figures']['en']['value']:.2f}" in text
    assert main(["table", "1", folder, "--preset", "llm-srt"]) == 0
    text = capsys.readouterr().out
    assert "case:mixed|eff:no|tok:char" in text and text.count("tok:") == 1


def test_another_trials_settings_are_noted(tmp_path):
    """The start too: each seed may have its own."""
    tiny = [("model_config.qformer_layers", 4), ("alignment.terms.ot.weight", 0.01)]
    tiny += [("alignment.diagnose_interval", 1), ("ckpt_path", "42.pt")]
    run(tmp_path / "a", "table3_ucb_lower", options=tiny, total_steps=30)
    run(tmp_path / "b", "table1_baseline", seed=43, total_steps=30)
    first, second = sorted(fill_table(1, [tmp_path]).notes)
    assert first == (
        "table1_baseline seed 43: not as its file in conf/experiment/ has it (found / there): "
        "train_config.total_steps 30 / 1950"
    )
    for told in (
        "table1_ours seed 42: ",
        "model_config.qformer_layers 4 / 8",
        "train_config.total_steps 30 / 1950",
        "alignment.terms.ot.weight 0.01 / 10.0",
        "ckpt_path '42.pt' / ",
    ):
        assert told in second
    assert "interval" not in second and "config.seed" not in second


UNREAD = [
    ("alignment.terms", {"mse": {"distance": "mse", "weight": 0.0}}),
    ("alignment.schedule.strategy", "random"),
    ("dataset_config.anchor_language", "ru"),
]


@pytest.mark.parametrize(
    ("name", "options", "system"),
    [
        ("table1_ours", [("language_bias.center", "language_only")], None),
        ("table1_ours", [("alignment.terms.ot.cost_scale", "dim")], None),
        # Options that nothing reads make no other row; nor does a name.
        ("table1_baseline", UNREAD, "table1_baseline"),
        ("table1_ours", [("alignment.terms.ot.weight", 0.0)], "table1_b_no_ot"),
    ],
)
def test_a_run_of_other_options_is_in_no_row_or_in_another(tmp_path, name, options, system):
    own = run(tmp_path / "a", name, options=options)
    filled = fill_table(1, [own])
    assert [each.system for each in filled.rows if each.figures] == [system] * bool(system)
    (key, value), told = options[0], " ".join(filled.notes)
    told_of = f"{own}: no row of this table; nearest table1_ours, but {key} {value!r} / "
    assert not told if system else told_of in told


def test_bad_runs_are_all_reported_at_once(tmp_path):
    good = run(tmp_path / "good", "table2_mse", seed=1)
    again = run(tmp_path / "again", "table2_mse", seed=1)
    broken, empty = (run(tmp_path / name, "table2_cosine") for name in ("broken", "empty"))
    (broken / "config.yaml").write_text("{")
    (empty / "config.yaml").write_text("a: 1")
    found = problems(2, good, good / ".", again, broken, empty, tmp_path / "nowhere")
    text = "\n".join(found)
    assert len(found) == 4 and "a second run of table2_mse with seed 1" in text
    for told in ("nowhere: no run directory", "cannot be read", "unknown key a"):
        assert told in text


def test_runs_must_share_utterances_and_references(tmp_path):
    first, second = run(tmp_path / "a", "table2_mse"), run(tmp_path / "b", "table2_cosine")
    place = second / "test_predictions.jsonl"
    one, two, *rest = read_predictions(place)
    other = dataclasses.replace(one, reference="别的"), dataclasses.replace(two, key="other")
    write_predictions(place, [*other, *rest])
    found = problems(2, first, second)
    assert len(found) == 3 and "decoded by" in found[0] and "decoded by" in found[1]
    assert "1 utterances are with two references: en-0" in found[2]
    write_predictions(place, [dataclasses.replace(one, reference=None), two, *rest])
    (problem,) = problems(2, second)
    assert "have no reference" in problem and "en-0" in problem


def test_rows_of_two_llms_are_told_apart_and_a_direction_is_a_column(tmp_path):
    for name in ("ai_sta_base", "ai_sta_vicuna_base", "ai_sta"):
        run(tmp_path / name, name, tests=("en_zh",))
    filled = fill_table("ai-sta-2", [tmp_path])
    assert {r.system for r in filled.rows if "En-Zh" in r.figures} == {
        "ai_sta_base", "ai_sta_vicuna_base", "ai_sta"
    }  # fmt: skip
    assert "AI-STA Table 4" in fill_table("ai-sta-4", []).text()


def test_parts_tables_have_its_averages_and_are_filled_from_recipes(tmp_path):
    paper = row(PAPER_TABLES["part-2"], "recipe/part_8b").paper
    for prefix, average in (("FLEURS ", 3.73), ("CV15 ", 6.29)):
        columns = [name for name in paper if name.startswith(prefix) and "avg" not in name]
        assert len(columns) == 10
        assert sum(paper[name][0] for name in columns) / 10 == pytest.approx(average, abs=0.001)
        assert paper[f"{prefix}avg."] == [average]
    folders = []
    for name in ("part", "part_two_stages", "part_two_stages_full"):
        folder = tmp_path / name
        folder.mkdir()
        config = load_recipe(name).stages[-1].config
        (folder / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
        noise = {"part": 0.1}.get(name, 0.5)
        for test in ("fleurs_asr", "covost2"):
            pairs = TESTS[test].columns.values()
            made = [item for one, two in pairs for item in make([one], 4, noise, 1, target=two)]
            made = [dataclasses.replace(item, key=f"{i}") for i, item in enumerate(made)]
            write_predictions(folder / f"{test}_predictions.jsonl", made)
        folders.append(folder)
    filled = fill_table("part-4", folders, convention=PRESETS["part"])
    for system in ("recipe/part_two_stages", "recipe/part_two_stages_full"):
        assert row(filled, system).seeds == [42]
        assert set(row(filled, system).figures) == {"FLEURS avg.", "CoVoST2 avg."}
    assert any("nearest recipe/part_two_stages" in note for note in filled.notes)
    filled = fill_table("part-2", folders[:2], convention=PRESETS["part"])
    ours, two = row(filled, "recipe/part"), row(filled, "recipe/part_two_stages")
    assert len(ours.figures) == 11 and not row(filled, "recipe/part_8b").figures
    assert ours.figures["FLEURS avg."].value < two.figures["FLEURS avg."].value
    assert {text[:3] for text in filled.signatures} == {"WER", "CER"}
    assert main(["table", "part-3", str(folders[0])]) == 0
