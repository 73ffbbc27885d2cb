"""Raw data to table, by the command line alone: FLEURS and CoVoST2 trees, three stages, Table 1.

With ASTERISK_DEBS (a folder of the packages, as in tests/data/test_asterisk.py) the trees are made
of people's recordings, without it of tones.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.cli import main
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.data.sources import asterisk
from slam_potsa.provenance import read_record
from tests.support import mini_covost2, mini_fleurs, tiny, tiny_recipe

LANGUAGES = ("en", "es", "ru", "fr")


def recordings(folder: Path) -> Path:
    """A manifest of some twenty sentences in four languages, with absolute paths."""
    if "ASTERISK_DEBS" in os.environ:
        corpus = asterisk.build(folder, from_dir=os.environ["ASTERISK_DEBS"], progress=False)
        sources = [corpus.path("train"), corpus.path("zero_shot")]
    else:
        sources = [tiny.recordings(folder, sentences=20, languages=LANGUAGES)]
    rows = [replace(u, audio=str(p.parent / u.audio)) for p in sources for u in read_manifest(p)]
    names = list(dict.fromkeys(u.sentence_id for u in rows))[:20]
    chosen = [u for u in rows if u.sentence_id in names and u.language in LANGUAGES]
    write_manifest(folder / "chosen.jsonl", chosen)
    return folder / "chosen.jsonl"


@pytest.mark.slow
def test_from_raw_data_to_the_papers_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    manifest = recordings(tmp_path / "recordings")
    tree = mini_fleurs.from_manifest(tmp_path / "fleurs", manifest)
    english = [u for u in read_manifest(manifest) if u.language == "en"]
    write_manifest(tmp_path / "recordings" / "english.jsonl", english)
    covost2 = mini_covost2.from_manifest(
        tmp_path / "covost2", tmp_path / "recordings" / "english.jsonl", target=lambda u: u.target
    )
    data = tmp_path / "data"
    sets = ["--train-languages", "en,es,ru", "--zero-shot", "fr", "--min-seconds", "0.2"]
    sets += ["--rate-deviations", "0"]  # tones have no speaking rate
    assert main(["prepare", "fleurs", str(tree), str(data / "fleurs"), *sets]) == 0
    raw = ["--common-voice", str(covost2.common_voice), "--tsv", str(covost2.tsv)]
    assert main(["prepare", "covost2", *raw, "--output", str(data / "covost2")]) == 0
    assert "dropped.jsonl" in capsys.readouterr().out

    run = ["run", "recipe=potsa", "engine=native", f"output_dir={tmp_path / 'out'}", "processes=1"]
    run += shrunk(tmp_path / "world", data)
    assert main(run) == 0
    out = tmp_path / "out"
    for stage in ("1_asr", "2_s2tt", "3_potsa"):
        assert json.loads((out / stage / "done.json").read_text())
    done = read_record(out / "3_potsa" / "done.json")
    best = (out / "2_s2tt" / "best" / "model.pt").read_bytes()
    assert done.made_from["content of ckpt_path"] == hashlib.sha256(best).hexdigest()
    lines = [json.loads(line) for line in (out / "3_potsa/metrics.jsonl").open()]
    assert all("ot" in line and line["layers"] for line in lines)
    assert main(["table", "1", str(out), "--bootstrap", "0"]) == 0
    printed = capsys.readouterr().out
    assert "ours, 1 seed" in printed and "no ja, ko, so there is no average" in printed


def shrunk(world: Path, data: Path) -> list[str]:
    """Overrides of the recipe: tiny models, a handful of steps, the manifests just prepared."""
    config = tiny_recipe.parts(world)
    model, train = config.model_config, config.train_config
    own = ("llm_path", "encoder_path_hf", "encoder_window", "query_len", "qformer_layers")
    own += ("qformer_dim", "qformer_heads")
    given = [f"model_config.{name}={getattr(model, name)}" for name in own]
    given += [f"dataset_config.mel_size={config.dataset_config.mel_size}"]
    given += ["train_config.num_workers_dataloader=0", "train_config.batch_size_training=2"]
    given += ["train_config.gradient_accumulation_steps=1", "train_config.validation_interval=2"]
    given += [f"train_config.total_steps={train.total_steps}", "train_config.warmup_steps=1"]
    given += ["native.max_steps=3", "decode.num_beams=1", "decode.max_new_tokens=5"]
    for stage, source in (("asr", "covost2"), ("s2tt", "covost2"), ("potsa", "fleurs")):
        given += [f"{stage}.dataset_config.train_data_path={data / source / 'train.jsonl'}"]
        given += [f"{stage}.dataset_config.val_data_path={data / source / 'dev.jsonl'}"]
    return given + [f"tests.{name}={data}/fleurs/{name}.jsonl" for name in ("test", "zero_shot")]
