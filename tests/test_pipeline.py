"""Raw data to table, by the command line alone: FLEURS and CoVoST2 trees, three stages, Table 1."""

import hashlib
import json
from pathlib import Path

import pytest

from slam_potsa.cli import main
from slam_potsa.provenance import read_record
from tests.support import mini_covost2, mini_fleurs, tiny, tiny_recipe


@pytest.mark.slow
def test_from_raw_data_to_the_papers_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tree = mini_fleurs.build_tree(tmp_path / "fleurs", mini_fleurs.world())
    english = tiny.recordings(tmp_path / "recordings", sentences=20, languages=("en",))
    covost2 = mini_covost2.from_manifest(tmp_path / "covost2", english)
    data, out = tmp_path / "data", tmp_path / "out"
    sets = ["--train-languages", "en,es", "--zero-shot", "fr"]
    assert main(["prepare", "fleurs", str(tree), str(data / "fleurs"), *sets]) == 0
    raw = ["--common-voice", str(covost2.common_voice), "--tsv", str(covost2.tsv)]
    assert main(["prepare", "covost2", *raw, "--output", str(data / "covost2")]) == 0
    assert "dropped.jsonl" in capsys.readouterr().out

    run = ["run", "recipe=potsa", "engine=native", f"output_dir={out}", "processes=1"]
    assert main(run + shrunk(tmp_path / "world", data)) == 0
    for stage in ("1_asr", "2_s2tt", "3_potsa"):
        assert json.loads((out / stage / "done.json").read_text())
    done = read_record(out / "3_potsa" / "done.json")
    best = (out / "2_s2tt" / "best" / "model.pt").read_bytes()
    assert done.made_from["content of ckpt_path"] == hashlib.sha256(best).hexdigest()
    lines = [json.loads(line) for line in (out / "3_potsa/metrics.jsonl").open()]
    assert all("ot" in line and line["layers"] for line in lines)
    assert main(["table", "1", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "ours, 1 seed" in printed and "no ja, ko, ru, so there is no average" in printed


def shrunk(world: Path, data: Path) -> list[str]:
    """Overrides of the recipe: tiny models, a handful of steps, the manifests just prepared."""
    of_the_recipe = ("output_dir=", "_data_path=", "run_validation=", "prompt=")
    given = tiny_recipe.sizes(tiny_recipe.parts(world), world, steps=3)
    given = [text for text in given if not any(key in text for key in of_the_recipe)]
    given += ["train_config.total_steps=100", "train_config.validation_interval=2"]
    given += ["decode.num_beams=1", "decode.max_new_tokens=5"]
    for stage, source in (("asr", "covost2"), ("s2tt", "covost2"), ("potsa", "fleurs")):
        given += [f"{stage}.dataset_config.train_data_path={data / source / 'train.jsonl'}"]
        given += [f"{stage}.dataset_config.val_data_path={data / source / 'dev.jsonl'}"]
    return given + [f"tests.{name}={data}/fleurs/{name}.jsonl" for name in ("test", "zero_shot")]
