"""Projectors whose tokens are as long as the speech: PART's adapter, AI-STA's windows."""

import pytest
import torch

from slam_potsa.config.check import check
from slam_potsa.data.dataset import get_speech_dataset
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.model.projectors import TransformerCnn, WindowQFormer
from tests.support import refused, tiny

SIZES = {"qformer_layers": 2, "qformer_dim": 16, "qformer_heads": 2, "qformer_dropout": 0.0}


def test_tokens_follow_the_speech_and_do_not_depend_on_padding():
    torch.manual_seed(0)
    adapter = TransformerCnn(16, 8, frames_per_token=4, **SIZES)
    x, atts = torch.randn(3, 13, 16), torch.ones(3, 13)
    atts[1, 6:] = atts[2] = 0
    out = adapter(x, atts)
    assert out.shape == (3, 4, 8) and len(adapter.layers) == 2
    x[1, 6:] = float("nan")
    torch.testing.assert_close(adapter(x, atts)[:2], out[:2])
    torch.testing.assert_close(adapter(x[1:2, :6], atts[1:2, :6])[0], out[1, :2])
    out.sum().backward()  # the third row holds no speech
    assert all(torch.isfinite(p.grad).all() for p in adapter.parameters())


@pytest.mark.parametrize("frames", [1, 17, 18, 40])
def test_each_window_is_a_token_that_depends_on_it_alone(frames):
    torch.manual_seed(0)
    projector = WindowQFormer(8, 12, **SIZES).eval()
    x = torch.randn(2, 60, 8)
    mask = torch.arange(60) < torch.tensor([[frames], [60]])
    whole = projector(x, mask.float())
    alone = projector(x[:1, :frames])
    assert whole.shape == (2, 4, 12) and alone.shape[1] == -(-frames // 17)
    torch.testing.assert_close(whole[:1, : alone.shape[1]], alone)
    assert whole.isfinite().all()  # also of windows without a frame
    changed = x.clone()
    changed[1, 20] += 1.0
    moved = (projector(changed, mask.float()) - whole).abs().amax(2)[1] > 1e-6
    assert moved.tolist() == [False, True, False, False]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("cnn"), sentences=3)
    model = config.model_config
    model.encoder_projector, model.frames_per_token = "transformer-cnn", 8
    config.dataset_config.frames_per_token = 8
    model.query_len = config.dataset_config.fix_length_audio = 188
    model.qformer_layers = 2
    config.alignment.terms, config.language_bias.enabled = {}, False
    config.train_config.num_epochs = 1
    return config


def test_a_row_has_as_many_slots_as_tokens_and_a_run_trains_and_answers(config):
    native.finetune(config)
    translator = Translator(load_run(config.train_config.output_dir))
    dataset = get_speech_dataset(config.dataset_config, translator.tokenizer, "train")
    rows = [dataset.example(utterance) for utterance in dataset.items.utterances]
    batch = dataset.collator([[row] for row in rows])
    assert batch["modality_mask"].sum(1).tolist() == [-(-row["frames"] // 8) for row in rows]
    with torch.no_grad():
        together = translator.model(**batch)[0].logits
        for index, row in enumerate(rows[:2]):
            alone = translator.model(**dataset.collator([[row]]))[0].logits[0]
            torch.testing.assert_close(together[index, : len(alone)], alone, rtol=1e-3, atol=1e-4)
    answers = translator.decode(config.dataset_config.train_data_path, progress=False)
    assert len(answers) == len(rows)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"frames_per_token": 0}, "the others need one"),
        ({"frames_per_token": 4}, "are up to 375 tokens"),
        ({"encoder_projector": "q-former"}, "q-former reads none"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config, change, said):
    data = {"frames_per_token": change.get("frames_per_token", 8)}
    refused(said, check, tiny.changed(config, model_config=change, dataset_config=data))
