import argparse
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam_potsa.commands import analyze as command
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis import (
    Analysis,
    Settings,
    analyze,
    differences,
    differences_text,
    figures,
    read_analysis,
    write_analysis,
    write_figures,
)
from slam_potsa.evaluation.analysis.result import DEFINITIONS, pair_places, relative_places
from slam_potsa.evaluation.retrieval import recall_at_1
from slam_potsa.evaluation.vectors import pooled_vectors
from tests.support.trained import untrained_run

QUICK = Settings(codes=8, codebooks=2, shuffles=2, perplexity=5)
LAYERS = [f"qformer.{n}" for n in range(1, 5)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run with bias compensation, one without) on the same recordings."""
    folders = [tmp_path_factory.mktemp(name) for name in ("ours", "baseline")]
    return [
        untrained_run(folder, compensated=place == 0, seed=place)
        for place, folder in enumerate(folders)
    ]


@pytest.fixture(scope="module")
def manifest(runs):
    return Path(runs[0].config.dataset_config.test_data_path)


@pytest.fixture(scope="module")
def found(runs, manifest):
    names = ("ours", "base")
    return [
        analyze(run, manifest, heard=["en", "es"], settings=QUICK, name=name)
        for run, name in zip(runs, names, strict=True)
    ]


def test_every_tap_has_every_measure(found):
    ours, base = found
    assert list(ours.taps) == ["encoder", "compensated", *LAYERS, "projector"]
    assert list(base.taps) == ["encoder", *LAYERS, "projector"]
    assert ours.recordings == {"en": 6, "es": 6, "ru": 6} and ours.sentences == 6
    for measures in ours.taps.values():
        headline = measures.headline()
        assert {key.split(",")[0] for key in DEFINITIONS} - {"query share"} <= {
            key.split(",")[0] for key in headline
        }
        assert 0 <= headline["language probe"] <= 1
        assert measures.probe.chance == pytest.approx(1 / 3)
        assert len(measures.retrieval.pairs) == 6 and len(measures.overlap.pairs) == 3
        assert set(measures.transport.means) == {"all", "among heard", "with an unheard"}
        assert 0 < measures.ranks.pooled <= measures.ranks.pooled_limit <= 17
    assert ours.taps["encoder"].query_share is None
    assert 0 < ours.taps["projector"].query_share < 1


def test_retrieval_is_that_of_the_pooled_vectors(runs, manifest, found):
    spoken = read_manifest(manifest)
    expected = recall_at_1(
        pooled_vectors(runs[0], manifest, "qformer.2"),
        [utterance.sentence_id for utterance in spoken],
        [utterance.language for utterance in spoken],
        heard=["en", "es"],
    )
    assert found[0].taps["qformer.2"].retrieval.means == pytest.approx(expected.means)


def test_compensation_leaves_no_language_mean_where_it_was_estimated(found):
    assert found[0].taps["encoder"].language_share > 0.01
    assert found[0].taps["compensated"].language_share == pytest.approx(0, abs=1e-6)


def test_several_manifests_are_one_set_of_recordings(runs, manifest, found, tmp_path):
    spoken = read_manifest(manifest)
    spoken = [replace(u, audio=str(manifest.parent / u.audio)) for u in spoken]
    write_manifest(tmp_path / "a.jsonl", [u for u in spoken if u.language == "ru"])
    write_manifest(tmp_path / "b.jsonl", [u for u in spoken if u.language != "ru"])
    again = analyze(
        runs[0], [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], heard=["en", "es"], settings=QUICK
    )
    assert again.recordings == found[0].recordings
    ours, theirs = (a.taps["projector"].headline() for a in (again, found[0]))
    # Batches of other rows differ in the last bits, and k-means on few tokens hangs on them.
    same = [key for key in ours if "JSD" not in key]
    assert {k: ours[k] for k in same} == pytest.approx({k: theirs[k] for k in same}, rel=1e-3)


def test_subsampling_is_stated_and_heard_languages_come_from_training(runs, manifest):
    small = analyze(runs[0], manifest, settings=replace(QUICK, sentences=3))
    assert small.sentences == 3 and small.as_dict()["settings"]["sentences"] == 3
    assert small.recordings == {"en": 3, "es": 3, "ru": 3}
    assert tuple(small.heard) == ("en", "es", "ru")


def test_json_holds_everything(found, tmp_path):
    write_analysis(tmp_path / "analysis.json", *found)
    again, base = read_analysis(tmp_path / "analysis.json")
    assert isinstance(again, Analysis) and again.as_dict() == found[0].as_dict()
    assert base.as_dict() == found[1].as_dict()
    content = json.loads((tmp_path / "analysis.json").read_text())
    assert content["differences"] == differences(*found)
    arrow = content["arrows"]["projector"]["en–es"]
    assert arrow["to"] == pytest.approx(pair_places(found[0].taps["projector"])["en", "es"])
    write_analysis(tmp_path / "alone.json", found[0])
    assert read_analysis(tmp_path / "alone.json")[1] is None
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "missing.json"):
        with pytest.raises(InputError, match="slam-potsa analyze"):
            read_analysis(tmp_path / name)


def test_tables(found):
    ours, base = found
    lines = ours.text().splitlines()
    assert lines[0].startswith("ours: 6 sentences") and "heard: en, es" in lines[0]
    recall = 100 * ours.taps["projector"].retrieval.means["all"]
    row = next(line.split() for line in lines if line.startswith("projector"))
    assert float(row[1]) == pytest.approx(recall, abs=0.06)
    changed = differences_text(ours, base)
    assert changed.startswith("ours − base") and "compensated" not in changed
    moved = ours.taps["projector"].ranks.pooled - base.taps["projector"].ranks.pooled
    assert f"{moved:+.1f}" in changed


def test_differences_need_the_same_recordings(found):
    other = replace(found[1], manifests=("other.jsonl",), settings=Settings())
    with pytest.raises(InputError) as error:
        differences(found[0], other)
    assert len(error.value.problems) == 2 and "other.jsonl" in str(error.value)


def test_figures_are_drawn_with_captions_and_stand_alone(found, tmp_path):
    drawn = figures(*found)
    names = [figure.name for figure in drawn]
    assert len(set(names)) == len(names)
    assert {"pca_encoder", "pca_compensated", "tsne_projector", "baseline_tsne_projector"} <= {
        *names
    }
    assert {"heat_map", "baseline_heat_map", "arrows_qformer.2", "arrows_projector"} <= {*names}
    for figure in drawn:
        assert figure.caption.endswith(".") and figure.title
        assert ET.fromstring(figure.svg).find("title").text == figure.title
        assert "nan" not in figure.svg
    for path in write_figures(tmp_path, drawn):
        root = ET.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def without_ceilings(analysis):
    """As an analysis.json of before wrote it."""
    content = analysis.as_dict()
    for tap in content["taps"].values():
        del tap["overlap"]["ceilings"]
    return Analysis.from_dict(content)


def test_arrows_and_differences_are_relative_to_the_ceiling(found, tmp_path):
    ours, base = found
    write_analysis(tmp_path / "analysis.json", *found)
    arrow = json.loads((tmp_path / "analysis.json").read_text())["arrows"]["projector"]["en–es"]
    for place, (key, run) in enumerate((("from", base), ("to", ours))):
        overlap = run.taps["projector"].overlap
        assert arrow[key][1] == overlap.pairs["en", "es"]
        assert arrow["ceilings"][place] == overlap.ceilings["en", "es"]
        assert arrow["relative"][place] == pytest.approx(arrow[key][1] / arrow["ceilings"][place])
        places = relative_places(run.taps["projector"])
        assert places["en", "es"] == pytest.approx((arrow[key][0], arrow["relative"][place]))
    changed = differences(ours, base)["projector"]
    assert {"1-JSD, all", "1-JSD, ceiling", "1-JSD / ceiling, all"} <= set(changed)
    heads = differences_text(ours, base).splitlines()[1].split()
    assert "1-JSD/ceil." in heads and not {"1-JSD", "ceiling"} & {*heads}
    drawn = next(figure for figure in figures(*found) if figure.name == "arrows_projector")
    assert "1 − JSD / ceiling" in drawn.svg and "ceiling of each pair" in drawn.caption


def test_an_analysis_without_the_ceiling_of_each_pair_is_drawn_with_the_mean(found, tmp_path):
    ours, old = found[0], without_ceilings(found[1])
    write_analysis(tmp_path / "analysis.json", ours, old)
    again = read_analysis(tmp_path / "analysis.json")
    drawn = next(figure for figure in figures(*again) if figure.name == "arrows_projector")
    assert "mean ceiling of all pairs" in drawn.caption
    arrow = json.loads((tmp_path / "analysis.json").read_text())["arrows"]["projector"]["en–es"]
    assert arrow["ceilings"] == [run.taps["projector"].overlap.ceiling for run in (old, ours)]


def test_chance_and_the_number_of_queries_are_told(found):
    drawn = {figure.name: figure for figure in figures(*found)}
    assert "chance" in drawn["recall"].svg and "Dotted: chance" in drawn["recall"].caption
    assert "share of 6 recordings" in drawn["heat_map"].caption
    assert "chance: 16.7 %" in drawn["heat_map"].caption
    assert "also without alignment" in drawn["transport_costs"].caption


def test_figures_of_one_run(found):
    ours, base = found
    names = [figure.name for figure in figures(ours)]
    assert not any(name.startswith("baseline") for name in names) and "arrows_projector" in names
    plain = [figure.name for figure in figures(replace(base, heard=None))]
    assert "recall" in plain and "pca_compensated" not in plain


def test_a_diverged_model_is_refused(runs, manifest):
    weight = runs[1].model.encoder_projector.linear.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    try:
        with pytest.raises(InputError, match="projector: the model's output holds NaN"):
            analyze(runs[1], manifest, settings=QUICK)
    finally:
        with torch.no_grad():
            weight.copy_(before)


def arguments(*words):
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    return parser.parse_args(["analyze", *map(str, words)])


def run_folder(translator):
    return Path(translator.config.ckpt_path).parent


def test_command_line(runs, manifest, tmp_path, capsys):
    ours, base = map(run_folder, runs)
    given = [ours, manifest, "--against", base, "--output", tmp_path, "--heard", "en", "es"]
    args = arguments(*given, "--sentences", 4)
    args.command(args)
    printed = capsys.readouterr().out
    assert str(tmp_path / "analysis.json") in printed and "projector" in printed
    analysis, baseline = read_analysis(tmp_path / "analysis.json")
    assert analysis.name != baseline.name and analysis.sentences == 4
    assert (tmp_path / "arrows_projector.svg").is_file()


def test_command_line_takes_a_checkpoint(runs):
    folder = run_folder(runs[0])
    (folder / "best").mkdir(exist_ok=True)
    best = folder / "best" / "model.pt"
    best.write_bytes((folder / "model.pt").read_bytes())
    for run, checkpoint in ((folder, folder / "model.pt"), (best, best), (best.parent, best)):
        assert Path(command._config(run).ckpt_path) == checkpoint
        assert command._folder(run).resolve() == folder.resolve()


def test_command_line_tells_all_that_is_wrong_before_it_loads_anything(manifest, tmp_path):
    args = arguments(tmp_path, manifest, "--against", tmp_path / "none", "--heard", "eo")
    with pytest.raises(InputError) as error:
        args.command(args)
    assert len(error.value.problems) == 3 and "heard 'eo'" in str(error.value)
