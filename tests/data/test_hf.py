"""Hugging Face datasets into manifests, from disk; nothing is fetched."""

import io

import numpy as np
import pytest
import soundfile

from slam_potsa.data.audio import load_audio
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.sources import hf
from slam_potsa.errors import InputError

datasets = pytest.importorskip("datasets")
pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
COLUMNS = ["audio=clip", "transcript=said", "target=meaning", "language=lang"]


def clip(seconds=0.2, level=0.1):
    stream = io.BytesIO()
    soundfile.write(stream, np.full(int(16000 * seconds), float(level)), 16000, format="FLAC")
    return {"bytes": stream.getvalue(), "path": "clip.flac"}


@pytest.fixture(params=["saved", "parquet"])
def folder(tmp_path, request):
    rows = {
        "clip": [clip(), clip(), clip(level=0), clip(31)],
        "said": ["Bonjour.", "Hello.", "Hola.", "Adios."],
        "meaning": ["你好。", "你好。", "你好。", None],
        "lang": ["French", "en", "es", "es"],
    }
    (tmp_path / "held").mkdir()
    splits = {"train": rows, "test": {name: column[:1] for name, column in rows.items()}}
    for name, of in splits.items():
        if request.param == "parquet":  # as on the hub
            parquet.write_table(pyarrow.table(of), tmp_path / "held" / f"{name}-0.parquet")
        else:
            splits[name] = datasets.table.InMemoryTable(pyarrow.table(of))
            splits[name] = datasets.Dataset(splits[name], fingerprint=name)
    if request.param == "saved":
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "held")
    return tmp_path / "held"


def build(folder, **options):
    options = {"columns": COLUMNS, "target_language": "zh", "splits": ["train", "test"]} | options
    output = folder.with_name("made")
    return hf.build(output, dataset=str(folder), progress=False, **options)


def test_columns_become_fields_and_what_cannot_be_used_is_left_out(folder):
    made = build(folder)
    rows = read_manifest(made.path("train"), needs=("transcript", "target"))
    assert [(r.language, r.target, r.target_language) for r in rows] == [
        ("fr", "你好。", "zh"), ("en", "你好。", "zh")
    ]  # fmt: skip
    assert all(len(load_audio(row.audio, made.folder)) == 3200 for row in rows)
    assert made.left_out["train"] == {"silent": 1, "longer than 30 s": 1}
    assert len(read_manifest(made.path("test"))) == 1


def test_an_interrupted_call_is_continued_and_reads_no_row_twice(folder, monkeypatch):
    kept, read = hf._kept, []

    def stop_at_the_third(audio, place):
        read.append(place.name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return kept(audio, place)

    monkeypatch.setattr(hf, "_kept", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(folder)
    made = build(folder)
    assert read == ["0", "1", "2", "2", "3", "0"]
    assert made.manifests.keys() == {"train", "test"}


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ("'text' for transcript; there are clip, said", {"columns": [*COLUMNS, "transcript=text"]}),
        ("no column 'audio' for audio", {"mapping": "covost2", "columns": ()}),
        ("expected --mapping, one of fleurs, covost2", {"mapping": "covost"}),
        ("cannot be opened .*check name and --splits", {"splits": ["dev"]}),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(told, options, folder):
    with pytest.raises(InputError, match=told):
        build(folder, **options)


def test_what_was_saved_without_splits_is_the_training_set(tmp_path):
    table = datasets.table.InMemoryTable(pyarrow.table({"clip": [clip()], "said": ["Hi."]}))
    datasets.Dataset(table, fingerprint="x").save_to_disk(tmp_path / "held")
    options = {"columns": COLUMNS[:2], "language": "en"}
    with pytest.raises(InputError, match="validation: cannot be opened .*there are train"):
        build(tmp_path / "held", splits=["train", "validation"], **options)
    made = build(tmp_path / "held", splits=["train"], **options)
    assert made.manifests.keys() == {"train"}


def test_a_mapping_reads_the_configuration_and_what_columns_hold():
    row = {"transcriptions": {"de": "Guten  Tag."}, "original_language": "en", "id": 3}
    row |= {"original_speech": None, "raw_transcription": "Hi.", "audio": {}}
    fields = {n: t.replace("TARGET", "de") for n, t in hf.MAPPINGS["europarl_st"].items()}
    assert hf.filled(fields, row, "") == {"language": "en", "target": "Guten Tag."}
    found = hf.filled(hf.MAPPINGS["fleurs"], row, "fr_fr")
    assert found == {"language": "fr_fr", "sentence_id": "fleurs-3", "transcript": "Hi."}
    assert all(set(fields) <= set(hf.FIELDS) for fields in hf.MAPPINGS.values())
