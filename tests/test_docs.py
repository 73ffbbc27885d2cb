"""What the pages tell a reader to type exists: commands, options, files."""

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from slam_potsa import cli
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config, conf_dir, require_known_keys
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.model.language_bias import LanguageBias

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = [spec.name for spec in dataclasses.fields(PotsaConfig)]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = {"", "bash", "sh", "console"}
END = {">", ">>", "|", "&&", "||", ";", "&"}  # of a command, in a shell


def pages():
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def commands(text):
    """(arguments, is a line of a code block) of every `slam-potsa ...` on a page."""
    blocks = [code for kind, code in FENCE.findall(text) if kind in SHELL]
    lines = [line for code in blocks for line in code.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", FENCE.sub("", text))
    for line, in_block in [*((x, True) for x in lines), *((x, False) for x in inline)]:
        if not line.strip().startswith("slam-potsa"):
            continue
        words = shlex.split(line, comments=True)
        end = next((place for place, word in enumerate(words) if word in END), len(words))
        yield words[1:end], in_block


def accepted(arguments, in_block):
    """Whether the command line's own parser takes them; in running text a name alone will do."""
    mentioned = not in_block and not any(word.startswith("-") for word in arguments)
    for whole in [arguments, [*arguments, "--help"]][: 1 + mentioned]:
        try:
            cli._parser().parse_args(whole)
            return True
        except SystemExit as stopped:
            if stopped.code == 0:
                return True
    return False


@pages()
def test_commands_are_those_of_the_command_line(page):
    refused = [found for found in commands(page.read_text()) if not accepted(*found)]
    assert not refused, [shlex.join(["slam-potsa", *arguments]) for arguments, _ in refused]


@pages()
def test_entry_scripts_are_named_as_a_wheel_has_them_too(page):
    code = "".join(code for kind, code in FENCE.findall(page.read_text()) if kind in SHELL)
    assert not re.findall(r"(?<!/)examples/potsa/\S*", code)  # `slam-potsa where examples`


@pages()
def test_what_a_page_names_and_shows_exists(page, tmp_path):
    text = page.read_text()
    for group, name in re.findall(r"\b(experiment|recipe)=([\w./-]*\w)", text):
        if not name.endswith(".yaml"):  # a file of the reader's own
            assert (conf_dir() / group / f"{name}.yaml").is_file(), f"{group}={name}"
    options = re.findall(rf"(?<![\w/.+])((?:{'|'.join(SECTIONS)})\.[a-z_0-9.]*[a-z_0-9])", text)
    files = (".safetensors", ".py")  # of that name
    require_known_keys([f"{name}=0" for name in options if not name.endswith(files)])
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", FENCE.sub("", text))
    missing = [target for target in links if not (page.parent / target).exists()]
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", FENCE.sub("", text)):
        titles = re.findall(
            r"^#+ (.*)", (page.parent / target if target else page).read_text(), re.M
        )
        slugs = [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]
        missing += [] if anchor in slugs else [f"{target}#{anchor}"]
    paths = re.findall(r"(?<![\w/])((?:examples/potsa|conf|slam_potsa)/[\w/.*-]*[\w*])", text)
    missing += [path for path in paths if not any(ROOT.glob(path))]
    assert not missing
    lines = [code for kind, code in FENCE.findall(page.read_text()) if kind == "json"]
    for line in (line for line in lines if '"sentence_id"' in line):
        (tmp_path / "m.jsonl").write_text(line, encoding="utf-8")
        assert read_manifest(tmp_path / "m.jsonl")


def test_the_page_of_options_is_what_the_command_prints(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import reference

    # Not an assertion about the texts: pytest would print both pages.
    if (ROOT / reference.PAGE).read_text(encoding="utf-8") != reference.reference():
        pytest.fail(f"{reference.PAGE} is not what slam_potsa/config says: {reference.COMMAND}")


def test_every_page_is_in_the_site():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert {page.name: nav.count(f": {page.name}\n") for page in PAGES[1:]} == dict.fromkeys(
        (page.name for page in PAGES[1:]), 1
    )


def literals(path):
    """Texts that a module holds, "…" where values are put in."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
        if isinstance(node, ast.JoinedStr | ast.Constant):
            yield re.sub(r"{[^}]*}", "…", "".join(map(str, texts)))


def test_the_errors_that_are_explained_are_those_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    said = "\n".join(t for path in ROOT.glob("slam_potsa/**/*.py") for t in literals(path))
    titles = re.findall(r"^### (.*)", page, re.MULTILINE)
    unsaid = [title for title in titles if title not in said]
    assert len(titles) > 30 and not unsaid


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="make docs installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    front = (tmp_path / "index.html").read_text()
    assert 'href="use.html"' in front and 'href="slam_potsa/model/taps.py.html"' in front
    api = (tmp_path / "api" / "objective.html").read_text()
    assert "transport_loss" in api and ":class:" not in api


def test_the_manifests_of_your_own_language_are_written_as_the_page_says(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "your_language.md").read_text()
    (code,) = (code for kind, code in FENCE.findall(page) if kind == "python")
    monkeypatch.chdir(tmp_path)
    # Sentence 3 is in two splits: it is tested, and so not trained.
    for split, sentences in {"train": "123", "dev": "4", "test": "35"}.items():
        own = [(f"en-{n}", "a.wav", "en", f"fleurs-{n}", None, f"句{n}", "zh") for n in sentences]
        write_manifest(f"data/fleurs/{split}.jsonl", [Utterance(*fields) for fields in own])
    files = ["1-anna.wav", "1-ben.wav", "3-ben.wav", "4-anna.wav", "5-anna.wav", "9-anna.wav"]
    Path("recordings.tsv").write_text("".join(f"{name}\tfleurs-{name[0]}\n" for name in files))
    Path("data/xyz/audio").mkdir(parents=True)
    for number, name in enumerate(files, start=1):
        soundfile.write(f"data/xyz/audio/{name}", np.full(number * 1600, 0.1), 16_000)
    exec(compile(code, "your_language.md", "exec"), {})
    for split, expected in {
        "train": [("audio/1-anna.wav", 0.1), ("audio/1-ben.wav", 0.2)],
        "dev": [("audio/4-anna.wav", 0.4)],
        "test": [("audio/3-ben.wav", 0.3), ("audio/5-anna.wav", 0.5)],
    }.items():
        rows = read_manifest(f"data/xyz/{split}.jsonl", needs=("target", "duration"))
        assert [(row.audio, row.duration) for row in rows] == expected
        assert all(row.target == f"句{row.sentence_id[-1]}" for row in rows)


def test_the_bias_of_another_encoder_is_estimated_as_the_page_says(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "drop_in.md").read_text()
    (code,) = (c for kind, c in FENCE.findall(page) if kind == "python" and "BiasStatistics" in c)
    monkeypatch.chdir(tmp_path)
    rows = [Utterance(key, f"{key}.wav", key, key) for key in ("en", "fr")]
    write_manifest("data/train.jsonl", rows)
    for size, row in enumerate(rows, start=1):
        soundfile.write(f"data/{row.audio}", np.full(size * 1600, 0.1), 16_000)
    exec(compile(code, "drop_in.md", "exec"), {"encode": lambda x: torch.full((2, 3), len(x))})
    found = LanguageBias.load("language_bias.safetensors").biases
    assert {code: bias.tolist() for code, bias in found.items()} == {
        "en": [1600] * 3,
        "fr": [3200] * 3,
    }


def test_pages_show_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import tables

    assert tables.PAGES == PAGES
    for page in PAGES:
        text = page.read_text()
        assert tables.filled(text) == text, f"{page.name}: run `python docs/tables.py`"
    old = "<!-- benchmarks/results/demo.txt -->\n```text\nold\n```"
    assert tables.filled(old).endswith(
        f"{(tables.ROOT / 'benchmarks/results/demo.txt').read_text()}```"
    )


def test_the_examples_of_the_readme_run():
    readme = PAGES[0].read_text()
    for target in re.findall(r"`?make ([a-z-]+)", readme):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
    for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("script", sorted((ROOT / "examples/potsa/scripts").glob("*.sh")))
def test_the_scripts_options_are_taken(script):
    options = re.findall(r"^    (\w[\w.]*=\S+)$", script.read_text(), re.MULTILINE)
    own = [option.replace("$", "") for option in options if not option.startswith("hydra.")]
    assert len(own) > 8 and compose_config(own).model_config.query_len == 80
