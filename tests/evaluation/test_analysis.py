import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam_potsa import cli
from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.engine.encode import store_features
from slam_potsa.errors import InputError
from slam_potsa.evaluation.activations import (
    detail_rows,
    read_recordings,
    reading,
    record,
    tap_names,
)
from slam_potsa.evaluation.analysis import (
    analyze,
    differences,
    draw,
    in_the_plane,
    read_analysis,
    write_analysis,
    write_figures,
)
from slam_potsa.evaluation.tap_measures import MeasureSettings
from slam_potsa.model.projectors import BiasCompensatedQFormer, TransformerCnn, WindowQFormer
from tests.support import refused, tiny
from tests.support.trained import untrained_run

QUICK = MeasureSettings(codes=8, codebooks=2, shuffles=2, perplexity=5)
NAMES = ("ours", "base")
LAYERS = [f"qformer.{n}" for n in range(1, 5)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run with bias compensation, one without) on the same recordings."""
    ours, base = (tmp_path_factory.mktemp(name) for name in ("ours", "baseline"))
    return untrained_run(ours), untrained_run(base, compensated=False, seed=1)


@pytest.fixture(scope="module")
def manifest(runs):
    return Path(runs[0].config.dataset_config.test_data_path)


@pytest.fixture(scope="module")
def found(runs, manifest):
    given = {"heard": ["en", "es"], "settings": QUICK}
    return [analyze(run, [manifest], name=n, **given) for run, n in zip(runs, NAMES, strict=True)]


def write(folder, name, spoken):
    """A manifest of {language: sentences}."""
    rows = [
        Utterance(f"{name}/{language}/{n}", "a.wav", language, f"s{n:02d}")
        for language, sentences in spoken.items()
        for n in sentences
    ]
    write_manifest(folder / f"{name}.jsonl", rows)
    return folder / f"{name}.jsonl"


def test_recordings_of_several_manifests_and_a_draw_of_them(tmp_path):
    manifests = [
        write(tmp_path, "train", {"en": range(30), "es": range(20), "ru": range(10, 16)}),
        write(tmp_path, "more", {"fr": range(9)}),
    ]
    rows = read_recordings(manifests)
    assert len(rows) == 65 and rows[0].audio == str(tmp_path / "a.wav")
    few, again, other = (detail_rows(rows[:50], 15, seed) for seed in (0, 0, 2))
    assert few == again != other and len(few) == 30
    drawn = {rows[row].sentence_id for row in few}
    assert max(drawn) < "s20"  # those that one language only speaks are not drawn
    detail = [rows[row] for row in detail_rows(rows[:56], 6, seed=0)]
    assert {row.sentence_id for row in detail} == {f"s{n}" for n in range(10, 16)}
    assert [row.language for row in detail].count("en") == 6
    wrong = write(tmp_path, "m", {"en": range(4), "es": range(4), "fr": [0, 99]})
    error = refused("2 problems", read_recordings, [wrong], heard=["en", "eo"])
    for piece in ("'fr': 1 of its sentences", "'eo': 0 of its sentences"):
        assert piece in str(error)


def test_tokens_of_a_row_average_to_its_vector_and_long_rows_are_thinned(runs, manifest):
    rows, taps = read_recordings([manifest]), ["encoder", "projector"]
    whole = record(runs[0], rows, taps, keep=range(18), positions=999)
    for pooled, tokens in whole.values():
        means = torch.stack([tokens[n].mean(0) for n in range(18)])
        assert torch.allclose(means, pooled, atol=1e-5)
    thin = record(runs[0], rows, taps, keep=[17], positions=3)
    kept, before = thin["encoder"].tokens[17], whole["encoder"].tokens[17]
    assert torch.allclose(kept, before[[0, round((len(before) - 1) / 2), -1]], atol=1e-5)
    assert thin["projector"].tokens[17].shape == (3, tiny.WIDTH)
    assert set(thin["encoder"].tokens) == {17}


def test_stored_features_stand_in_for_recordings_and_targets_are_not_needed(
    runs, manifest, tmp_path, monkeypatch
):
    translator, rows = runs[0], read_recordings([manifest])
    heard = record(translator, rows, ["encoder"])["encoder"].pooled
    store = store_features(translator.model.encoder, [manifest], tmp_path, progress=False)
    data = translator.config.dataset_config
    monkeypatch.setattr(data, "feature_store", str(store.folder))
    monkeypatch.setattr(data, "prompt", "USER : {target_language}")
    gone = [replace(row, audio="/nowhere", target=None, target_language=None) for row in rows]
    stored = record(translator, gone, ["encoder"])["encoder"].pooled
    assert torch.allclose(stored, heard, atol=2e-3)
    # What the store does not hold is encoded, as long as the model has its encoder.
    new = record(translator, [replace(row, key=f"new/{row.key}") for row in rows], ["encoder"])
    assert torch.allclose(new["encoder"].pooled, heard, atol=1e-5)


def test_every_tap_has_every_measure(runs, found):
    ours, base = found
    assert [*ours.numbers] == ["encoder", "compensated", *LAYERS, "projector"]
    assert [*base.numbers] == ["encoder", *LAYERS, "projector"] == [*tap_names(runs[1].model)]
    assert ours.recordings == {"en": 6, "es": 6, "ru": 6} and ours.sentences == 6
    for tap, numbers in ours.numbers.items():
        assert {"1-JSD / ceiling, all", "OT ratio, all", "R@1, among heard"} <= {*numbers}
        assert 0 <= numbers["language share"] <= 1
        assert ("query share" in numbers) == (tap not in ("encoder", "compensated"))
        assert len(ours.pairs[tap]["R@1"]) == 6
        assert set(ours.pairs[tap]["1-JSD"]) == {"en es", "en ru", "es ru"}
    assert ours.numbers["encoder"]["language share"] > 0.01
    # Compensated with biases of the same recordings: no language mean is left.
    assert ours.numbers["compensated"]["language share"] == pytest.approx(0, abs=1e-6)


def test_a_diverged_model_is_refused_and_other_recordings_are_not_compared(
    runs, found, manifest, monkeypatch
):
    told = differences(found[0], replace(found[1], manifests=["other"], settings={}))
    assert told.startswith("manifests: ") and "; settings: " in told
    assert differences(*found) == ""
    norm = runs[1].model.encoder_projector.norm
    monkeypatch.setattr(norm, "forward", lambda tokens: torch.full_like(tokens, torch.nan))
    with pytest.raises(InputError, match="projector: the model's output holds NaN"):
        analyze(runs[1], [manifest], name="", settings=QUICK)


def test_what_was_written_is_read_back_unless_it_is_outdated(found, manifest, tmp_path):
    copied = tmp_path / "m.jsonl"
    ours = replace(found[0], manifests=[str(copied)])
    copied.write_bytes(manifest.read_bytes())
    path = write_analysis(tmp_path, ours)
    assert read_analysis(tmp_path) == ours
    copied.write_bytes(manifest.read_bytes() + b"\n")
    refused("m.jsonl", read_analysis, tmp_path)
    copied.unlink()  # what is gone says nothing
    assert read_analysis(tmp_path) == ours
    path.write_text("{}")
    refused("not the one that was written", read_analysis, tmp_path)


def test_figures_have_captions_and_stand_alone(found, tmp_path):
    drawn = {figure.name: figure for figure in draw(*found)}
    views = {"pca_encoder", "pca_compensated", "tsne_projector", "baseline_tsne_projector"}
    lines = {"recall", "overlap", "transport_costs", "query_share"}
    assert views | lines | {"arrows_projector"} <= {*drawn}
    assert all(figure.caption.endswith(".") for figure in drawn.values())
    assert "en–es" in drawn["arrows_projector"].svg
    assert "base, with an unheard" in drawn["recall"].svg and "chance" in drawn["recall"].svg
    write_figures(tmp_path, list(drawn.values()))
    assert len([ET.parse(path) for path in tmp_path.iterdir()]) == len(drawn)
    drawn = {figure.name: figure for figure in draw(replace(found[1], heard=[]))}
    assert "arrows_projector" in drawn
    assert not {*drawn} & {"baseline_pca_projector", "pca_compensated"}


def test_views_of_few_vectors_of_many_and_of_a_point():
    groups = torch.randn(3, 30, 60, generator=torch.Generator().manual_seed(0))
    groups = (groups + torch.tensor([0.0, 40.0, 80.0])[:, None, None]).reshape(90, 60)
    planes, explained = in_the_plane(groups, MeasureSettings())
    assert 0.5 < sum(explained) < 1
    for method, points in planes.items():
        points = torch.tensor(points).reshape(3, 30, 2)
        nearest = torch.cdist(points.reshape(90, 2), points.mean(1)).argmin(1)
        assert nearest.tolist() == [n // 30 for n in range(90)], method
    assert all(len(points) == 4 for points in in_the_plane(groups[:4], QUICK)[0].values())
    assert in_the_plane(torch.ones(20, 4), QUICK)[0]["tsne"] == [[0.0, 0.0]] * 20


def run_command(*words):
    return cli.main(["analyze", *map(str, words)])


def test_command_line(runs, manifest, capsys, tmp_path):
    ours, base = (Path(run.config.ckpt_path).parent for run in runs)
    assert run_command(ours, manifest, "--against", base) == 0
    printed = capsys.readouterr().out
    assert str(ours / "analysis" / "analysis.json") in printed
    for found in map(read_analysis, (ours, base)):
        assert found.sentences == 6 and found.heard == ["en", "es", "ru"]
        assert found.text() in printed
    assert f"{100 * found.numbers['projector']['R@1, all']:.1f}" in printed
    assert (ours / "analysis" / "arrows_projector.svg").is_file()
    assert run_command(tmp_path, manifest, "--against", tmp_path / "none", "--heard", "eo") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: 3 problems") and "'eo'" in printed


@pytest.mark.parametrize("words", ["report RUN", "export RUN OUT", "analyze RUN M.jsonl"])
def test_a_package_that_is_missing_is_named_with_its_extra(words, monkeypatch, capsys):
    monkeypatch.setattr("slam_potsa.evaluation.figures.find_spec", lambda name: None)
    assert cli.main(words.split()) == 2
    assert "pip install slam-potsa[eval]" in capsys.readouterr().err


def test_where_tokens_look_is_the_attention_of_the_last_block_that_reads():
    torch.manual_seed(0)
    sizes = {"qformer_layers": 4, "qformer_dim": 16, "qformer_heads": 2, "qformer_dropout": 0.0}
    frames, valid = torch.randn(2, 40, 8), torch.arange(40) < torch.tensor([[40], [17]])
    projector = BiasCompensatedQFormer(8, 12, query_len=3, **sizes).eval()
    with reading(projector) as looks:
        without = projector(frames, valid)
    projector.qformer.set_attn_implementation("eager")
    own = []
    part = projector.layers[2].crossattention.attention
    part.register_forward_hook(lambda _, __, output: own.append(output[1].mean(1)))
    torch.testing.assert_close(projector(frames, valid), without)
    torch.testing.assert_close(looks, own)
    assert len(looks) == 1 and not looks[0][1, :, 17:].any()

    windows = WindowQFormer(8, 12, **sizes).eval()
    with reading(windows) as looks:
        windows(frames, valid)
    sums = torch.stack([part.sum(2) for part in looks[0].split(17, dim=2)], 2)  # token, window
    torch.testing.assert_close(sums[0], torch.eye(3))
    torch.testing.assert_close(sums[1], torch.eye(3) * torch.tensor([1.0, 0, 0]))
    with reading(adapter := TransformerCnn(8, 12, **sizes)) as looks:
        adapter(frames)
    assert looks == []  # no queries
