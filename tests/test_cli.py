import pytest

from slam_potsa.cli import main
from slam_potsa.config.compose import compose_config, require_known_keys
from tests.support import refusal, tiny
from tests.support.trained import save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tiny.world(tmp_path_factory.mktemp("cli")), compensated=False).config


def test_features_and_bias(run, tmp_path, capsys):
    manifest, encoder = run.dataset_config.train_data_path, run.model_config.encoder_path_hf
    common = [manifest, "--encoder", encoder, "--window", "trimmed"]
    assert main(["features", *common, "--output", str(tmp_path / "f")]) == 0
    assert "18 utterances" in capsys.readouterr().out
    from_store, from_audio = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    store = ["--features", str(tmp_path / "f")]
    assert main(["bias", *common, *store, "--output", str(from_store)]) == 0
    assert main(["bias", *common, "--output", str(from_audio), "--languages", "en", "ru"]) == 0
    assert capsys.readouterr().out.endswith("biases of en, ru\n")
    assert main(["bias", *common, "--output", str(from_audio), "--languages", "xx"]) == 2
    assert "languages xx: not spoken in" in capsys.readouterr().err


def test_wrong_input_is_one_message_and_exit_code_two(run, tmp_path, capsys):
    (tmp_path / "empty.wav").write_bytes(b"")
    arguments = ["translate", "nowhere.wav", str(tmp_path / "empty.wav"), "--language", "français"]
    assert main([*arguments, "--run", run.train_config.output_dir]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: 3 problems") and "Traceback" not in message
    for between in ([], ["--batch-size", "4"]):
        assert main(["decode", str(tmp_path), *between, "x.jsonl"]) == 2
        assert "expected the output_dir of a training run" in capsys.readouterr().err
    assert main(["prepare", "check", str(tmp_path / "empty.wav")]) == 2


def test_every_unknown_key_comes_at_once_with_what_may_be_meant():
    require_known_keys(["alignment=cosine", "alignment/schedule=random", "~ckpt_path"])
    require_known_keys(["+train_config.peft_config.r=4", "hydra.job.name=x"])
    error = refusal(compose_config, ["train_config.learning_rate=1", "lr=2", "recipe=potsa"])
    first, second, third = error.problems
    assert "'train_config.learning_rate': did you mean" in first
    assert "train_config.lr" in second and "slam-potsa run recipe=NAME" in third


def test_the_command_line_takes_overrides_after_options_and_refuses_other_words(capsys):
    assert main(["run", "recipe=potsa", "proceses=2", "arr.train_config.lr=1", "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("proceses") == 1 and "did you mean processes" in printed
    assert printed.count("arr.train_config.lr") == 1
    assert main(["plan", "--gpu", "h200", "experiment=table1_ours", "train_config.lr=-1"]) == 2
    assert "train_config.lr=-1.0: expected at least 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["score", "x.jsonl", "--beams", "4"])
    printed = capsys.readouterr().err
    assert "usage: slam-potsa score" in printed and "--beams" in printed
