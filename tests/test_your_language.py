"""docs/your_language.md's short way, from speech alone to a joined language, as it is written."""

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

from slam_potsa.cli import main
from slam_potsa.config.compose import compose_config
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine import native
from tests.support import tiny
from tests.support.trained import save_run
from tests.test_docs import FENCE


def test_the_short_way_of_the_page_runs_as_written(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "your_language.md").read_text()
    shell = [code for kind, code in FENCE.findall(page.split("\n## 1.")[0]) if kind == "bash"]
    config = tiny.world(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    rows = read_manifest(tiny.recordings(Path("data/fleurs"), languages=("en", "xyz")))
    for name, language in (("train", "en"), ("xyz_spoken", "xyz")):
        spoken = [row for row in rows if row.language == language]
        silent = [dataclasses.replace(row, target=None) for row in spoken]
        write_manifest(f"data/fleurs/{name}.jsonl", spoken if language == "en" else silent)
    config.train_config.output_dir = "outputs/potsa/3_potsa"
    config.dataset_config.train_data_path = "data/fleurs/train.jsonl"
    save_run(config)
    Path("outputs/potsa/3_potsa/best").mkdir()
    Path("outputs/potsa/3_potsa/model.pt").rename("outputs/potsa/3_potsa/best/model.pt")
    config.train_config.output_dir, config.train_config.run_validation = "outputs/join", False
    tiny_parts = r"(train|model)_config\.|dataset_config\.(mel|fix|encoder_w|prompt)"
    small = [option for option in tiny.overrides(config) if re.match(tiny_parts, option)]
    for line in "".join(shell).replace("\\\n", "").splitlines():
        program, *words = shlex.split(line)
        if program == "cat":
            subprocess.run(line, shell=True, check=True)
        elif program == "slam-potsa":
            assert main(words) == 0
        else:
            given = words[words.index("examples)/finetune.py") + 1 :]
            native.finetune(compose_config([*given, *small, "native.max_steps=4"]))
    assert any("join" in line for line in read_log("outputs/join/metrics.jsonl"))
    made = read_manifest("data/fleurs/pseudo.jsonl", needs=("target",))
    assert {row.language for row in made if row.synthetic} == {"xyz"}
