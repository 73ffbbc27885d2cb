"""Which layers can be aligned: ranks by transport, and that a planted layer is found."""

from pathlib import Path

import pytest
import torch

from slam_potsa import InputError, cli
from slam_potsa.config.compose import compose_config
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.evaluation import layer_selection
from slam_potsa.evaluation.layer_selection import SelectionSettings, reciprocal_ranks, select_layers
from slam_potsa.objective.terms import Tap
from slam_potsa.objective.transport import transport
from tests.support.trained import untrained_run


def clouds(count, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (count,), generator=generator).tolist()
    return [torch.randn(length, 6, generator=generator) for length in lengths]


def test_ranks_are_those_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(layer_selection, "NUMBERS", 2000)  # many blocks
    x = clouds(12, 0)
    noise = clouds(12, 1)
    y = [own[: max(2, len(own) - 2)] + 0.9 * n[:1] for own, n in zip(x, noise, strict=True)]
    names = [str(n) for n in range(12)]
    how = {"epsilon": 0.02, "max_iterations": 100, "cost_scale": "none"}
    matrix = torch.tensor([[transport(a[None], b[None], **how).cost.item() for b in y] for a in x])
    ranks = (matrix < matrix.diagonal()[:, None]).sum(1) + 1
    assert 1 < ranks.float().mean() < 6
    torch.testing.assert_close(
        reciprocal_ranks(x, y, names, SelectionSettings()), 1 / ranks.float()
    )
    # Of two texts that are the same neither is the other's rival.
    names[1], y[1] = names[0], y[0]
    assert reciprocal_ranks(x, y, names, SelectionSettings())[0] >= 1 / ranks[0]


def test_a_space_that_collapsed_is_at_chance():
    x = [torch.ones(4, 3)] * 9
    found = reciprocal_ranks(x, x, [str(n) for n in range(9)], SelectionSettings())
    assert torch.equal(found, torch.full((9,), 1 / 5))  # in the middle


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"), compensated=False)


def test_a_planted_layer_is_found_kept_and_taken_up(run, tmp_path, monkeypatch, capsys):
    manifest = Path(run.config.dataset_config.test_data_path)
    rows = read_manifest(manifest)
    truth, planted = {row.transcript: n for n, row in enumerate(rows[::3])}, []

    def states(recorder, names, input_ids=None, inputs_embeds=None):
        """At layer 1 speech is what its transcript is; elsewhere it is noise."""
        (name,) = names
        planted.append(name)
        given = input_ids if inputs_embeds is None else inputs_embeds
        noise = torch.randn(
            *given.shape[:2], 6, generator=torch.Generator().manual_seed(len(planted))
        )
        if name == "llm.1":
            texts = order[: len(given)]
            place = torch.tensor([float(truth[text]) for text in texts])
            noise = 0.01 * noise + place[:, None, None]
        return {name: Tap(noise)}

    how = SelectionSettings(pairs=6)
    english = tmp_path / "english.jsonl"
    write_manifest(english, [row for row in rows if row.language == "en"])
    (tmp_path / "audio").symlink_to(manifest.parent / "audio")
    order = [x.transcript for x, _ in layer_selection.draw_pairs(english, "llm", how)]
    run.config.train_config.val_batch_size = 8
    recorder = type(run.model.controller.recorder)
    monkeypatch.setattr(recorder, "read", states)
    found = select_layers(run, english, tmp_path, pairs=6, threshold=0.9)
    assert found.layers == [1] and found.mrr[1] == 1 and set(found.mrr) == {0, 1, 2}
    calls = len(planted)
    again = select_layers(run, english, tmp_path, pairs=6, threshold=0.9)
    assert again == found and len(planted) == calls
    kept = tmp_path / "llm.jsonl"
    kept.write_bytes(kept.read_bytes()[:-9])  # cut off in the last layer, which is measured again
    assert select_layers(run, english, tmp_path, pairs=6, threshold=0.9).mrr.keys() == {0, 1, 2}
    assert len(set(planted[calls:])) == 1
    monkeypatch.setattr(run.config.model_config, "llm_path", "another/llm")
    calls = len(planted)
    select_layers(run, english, tmp_path, pairs=6, threshold=0.9)
    assert len(set(planted[calls:])) == 3
    given = f"alignment.terms.ai_sta.layers=${{selected_layers:{tmp_path}/llm.yaml}}"
    config = compose_config(["alignment=ai_sta", given])
    assert config.alignment.terms["ai_sta"].layers == [1]
    assert (tmp_path / "llm.svg").read_text().startswith("<svg")
    with pytest.raises(InputError, match="select-layers RUN MANIFEST"):
        compose_config(["alignment=ai_sta", given.replace("llm.yaml", "other.yaml")])


@pytest.mark.parametrize(("flags", "layers"), [([], range(3)), (["--qformer"], range(1, 5))])
def test_the_command_measures_every_layer_of_a_run(
    run, tmp_path, capsys, monkeypatch, flags, layers
):
    config = run.config
    folder, manifest = config.train_config.output_dir, config.dataset_config.test_data_path
    assert cli.main(["select-layers", folder, manifest, *flags, "--pairs", "8"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {layer:3d}  0." in printed for layer in layers)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("slam_potsa.commands.analyze.load_run", lambda _: config)
    assert cli.main(["select-layers", "me/it", manifest, *flags, "--pairs", "8"]) == 0
    assert (tmp_path / "me_it" / "layers").is_dir() and not (tmp_path / "me").exists()
    lacking = tmp_path / "lacking.jsonl"
    lacking.write_text('{"key": "a", "audio": "a", "language": "en", "sentence_id": "a"}\n')
    assert cli.main(["select-layers", folder, str(lacking), *flags]) == 2
    assert ("transcript" if not flags else "two languages") in capsys.readouterr().err
