"""The formulas of `slam-potsa plan`, held to what torch counts on models that really run."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from slam_potsa.config import AlignmentConfig
from slam_potsa.config.compose import compose_config
from slam_potsa.engine.plan import budget, memory
from slam_potsa.engine.plan.assumptions import Assumptions
from slam_potsa.engine.plan.corpus import corpus_of
from slam_potsa.engine.plan.flops import (
    FUSED_BACKWARD,
    alignment_flops,
    encoder_flops,
    llm_flops,
    projector_flops,
)
from slam_potsa.engine.plan.parts import build_on_meta
from slam_potsa.engine.plan.sizes import Batch, EncoderSize, LlmSize, ProjectorSize
from slam_potsa.model.encoder import SpeechEncoder
from slam_potsa.model.qformer import BiasCompensatedQFormer
from tests.support import tiny

ROWS, FRAMES, POSITIONS, ANSWER = 2, 11, 13, 5
# transformers 4 writes rotary positions and the Q-Former's attention in other operations.
as_counted = pytest.mark.skipif(
    version("transformers").startswith("4."), reason="the formulas are those of transformers 5"
)


# -- tiny models that run --------------------------------------------------------------------------


class Running:
    """A model with a forward pass; what torch counts and keeps in it."""

    def __init__(self, model: nn.Module, forward, size):
        self.model, self.forward, self.size = model, forward, size

    def flops(self) -> tuple[int, int]:
        """Of the forward and the backward pass, attention as plain products."""
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            output = self.forward()
            forward = counter.get_total_flops()
            if output.requires_grad:
                output.float().sum().backward()
        return forward, counter.get_total_flops() - forward

    def kept(self, autocast: bool = False) -> int:
        """Bytes that autograd keeps, without weights and their copies in 16 bits."""
        weights = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        shapes = {tuple(p.shape) for p in self.model.parameters()}
        shapes |= {shape[::-1] for shape in shapes if len(shape) == 2}
        held, alive = {}, []

        def keep(tensor):
            alive.append(tensor)  # else another tensor could take its place in memory
            storage = tensor.untyped_storage()
            copy = autocast and tuple(tensor.shape) in shapes
            if storage.data_ptr() not in weights and not copy:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            alive.append(self.forward())
        return sum(held.values())


def running_llm(kind: str = "frozen", dtype: torch.dtype = torch.float32) -> Running:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=False,
    )
    llm = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    llm.requires_grad_(kind == "trained")
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        adapted = ["q_proj", "v_proj"]
        llm = get_peft_model(llm, LoraConfig(r=4, target_modules=adapted, task_type="CAUSAL_LM"))
    embeds = torch.randn(ROWS, POSITIONS, 32, dtype=dtype, requires_grad=True)
    mask = torch.ones(ROWS, POSITIONS, dtype=torch.long)
    mask[0, :3] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)

    def forward():
        return llm(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=places,
            logits_to_keep=ANSWER + 1,
            use_cache=False,
        ).logits

    return Running(llm, forward, LlmSize.of(config, "tiny"))


def running_projector(layers: int = 4, features_need_grad: bool = False) -> Running:
    size = ProjectorSize(layers, 16, 2, 5, 24, 40, 0.0)
    projector = BiasCompensatedQFormer(
        24, 40, query_len=5, num_layers=layers, hidden_size=16, num_heads=2, dropout=0.0
    ).train()
    features = torch.randn(ROWS, FRAMES, 24, requires_grad=features_need_grad)
    mask = torch.ones(ROWS, FRAMES)
    mask[0, 5:] = 0
    return Running(projector, lambda: projector(features, mask), size)


def running_encoder(trained: bool = True) -> Running:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=16,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        num_mel_bins=8,
    )
    encoder = SpeechEncoder(WhisperEncoder(config), "trimmed").requires_grad_(trained)
    mel, mask = torch.randn(ROWS, 2 * FRAMES, 8), torch.ones(ROWS, FRAMES, dtype=torch.bool)
    mask[0, 5:] = False
    return Running(encoder, lambda: encoder(mel, mask), EncoderSize.of(config))


# -- operations ------------------------------------------------------------------------------------


@as_counted
@pytest.mark.parametrize("kind", ["frozen", "trained", "lora"])
def test_llm_flops_are_torchs(kind):
    run = running_llm(kind)
    lora = sum(p.numel() for n, p in run.model.named_parameters() if "lora_" in n)
    counted = llm_flops(
        run.size, POSITIONS, ANSWER, trained=kind == "trained", lora=lora, attention_backward=2
    )
    assert counted.times(ROWS) == run.flops()
    if kind == "frozen":  # inputs only: as much as the forward pass, and attention's other half
        attention = 4 * POSITIONS**2 * run.size.heads * run.size.head_width * run.size.layers
        assert counted.backward - counted.forward == attention


@pytest.mark.parametrize("layers", [1, 4, 5])
@pytest.mark.parametrize("encoder_trained", [False, True])
def test_projector_flops_are_torchs(layers, encoder_trained):
    run = running_projector(layers, features_need_grad=encoder_trained)
    counted = projector_flops(
        run.size, FRAMES, encoder_trained=encoder_trained, attention_backward=2
    )
    assert counted.times(ROWS) == run.flops()


@pytest.mark.parametrize("trained", [False, True])
def test_encoder_flops_are_torchs(trained):
    run = running_encoder(trained)
    counted = encoder_flops(run.size, FRAMES, trained=trained, attention_backward=2)
    assert counted.times(ROWS) == run.flops()


def test_fused_attention_goes_back_as_torch_counts_it():
    shape = (ROWS, 4, POSITIONS, 8)
    forward = flop_counter.sdpa_flop_count(shape, shape, shape)
    assert forward == ROWS * 4 * POSITIONS**2 * 4 * 8
    assert flop_counter.sdpa_backward_flop_count(shape, shape, shape, shape) == (
        FUSED_BACKWARD * forward
    )


@pytest.mark.parametrize("variant", ["plain", "normalised", "debiased", "contrastive"])
@pytest.mark.parametrize("detached", [False, True])
def test_alignment_flops_are_torchs(variant, detached):
    from slam_potsa.objective.distances import build_distance
    from slam_potsa.objective.sides import Sides
    from slam_potsa.objective.variants import build_variant

    pairs, tokens, width = 3, 6, 16
    alignment = AlignmentConfig(variant=variant, detach_anchor=detached, max_iterations=20)
    distance = build_distance("ot", max_iterations=20, tolerance=0.0, debias=variant == "debiased")
    loss = build_variant("plain" if variant == "debiased" else variant)
    x, y = (torch.randn(pairs, tokens, width, requires_grad=True) for _ in "xy")
    meanings = torch.arange(pairs)

    # Its counter knows this product, but not where it is done in place.
    def product(_sum, x, y, **_options):
        return 2 * x[0] * x[1] * x[2] * y[2]

    in_place = {torch.ops.aten.baddbmm_: product}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        sides = Sides(x, y.detach() if detached else y, None, None)
        value = loss(distance, sides, meanings, meanings)
        forward = counter.get_total_flops()
        value.backward()
    counted = alignment_flops(alignment, pairs, tokens, (width,))
    assert counted.forward == forward
    assert counted.backward == pytest.approx(counter.get_total_flops() - forward, rel=1e-9)


@pytest.mark.parametrize("off", [{"weight": 0.0}, {"distance": "mse"}])
def test_alignment_without_products_costs_none(off):
    assert alignment_flops(AlignmentConfig(**off), 4, 80, (768,)).total == 0


# -- bytes -----------------------------------------------------------------------------------------


def batch() -> Batch:
    return Batch(ROWS, 0, FRAMES, POSITIONS, ANSWER)


# Of the speech's place in the text, which `forward` above has nothing of.
OUTSIDE = 9 * ROWS * POSITIONS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_llm_keeps_exactly_what_is_counted(dtype):
    run = running_llm("frozen", dtype)
    counted = memory.llm_activations(run.size, batch(), item=dtype.itemsize)
    assert counted - OUTSIDE == run.kept()


@pytest.mark.parametrize("autocast", [False, True])
def test_a_trained_llm_keeps_about_what_is_counted(autocast):
    run = running_llm("trained")
    item = 2 if autocast else 4
    counted = memory.llm_activations(run.size, batch(), item=item, trained=True, autocast=autocast)
    assert counted - OUTSIDE == pytest.approx(run.kept(autocast), rel=0.02)


@pytest.mark.parametrize("autocast", [False, True])
def test_lora_keeps_about_what_is_counted(autocast):
    run = running_llm("lora", torch.bfloat16)
    counted = memory.llm_activations(
        run.size,
        batch(),
        item=2,
        autocast=autocast,
        lora=memory.LoraSize.of(run.model, dropout=0.0),
    )
    assert counted - OUTSIDE == pytest.approx(run.kept(autocast), rel=0.04)


@as_counted
def test_the_projector_keeps_exactly_what_is_counted():
    run = running_projector()
    counted = memory.projector_activations(run.size, ROWS, FRAMES, item=4, autocast=False)
    assert counted == run.kept()


@as_counted
def test_the_projector_under_autocast_keeps_about_what_is_counted():
    # Not exactly: on a GPU the last LayerNorm casts its input to float32, on a CPU it does not.
    run = running_projector()
    counted = memory.projector_activations(run.size, ROWS, FRAMES, item=2, autocast=True)
    assert counted == pytest.approx(run.kept(autocast=True), rel=0.03)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_trained_encoder_keeps_about_what_is_counted(autocast):
    run = running_encoder()
    counted = memory.encoder_activations(
        run.size, ROWS, FRAMES, item=2 if autocast else 4, autocast=autocast
    )
    assert counted == pytest.approx(run.kept(autocast), rel=0.02)


@pytest.mark.parametrize(
    "trains", ["projector", "lora", pytest.param("everything", marks=as_counted)]
)
def test_weights_and_counts_are_those_of_the_model_that_is_built(tmp_path, trains):
    from slam_potsa.engine.prepare import provide_bias, use_bias
    from slam_potsa.model.factory import model_factory

    config = tiny.world(tmp_path)
    config.train_config.use_peft = trains == "lora"
    if trains == "everything":
        config.train_config.freeze_llm = config.train_config.freeze_encoder = False
        config.language_bias.enabled = False
    config.model_config.llm_dtype = "bfloat16"
    if config.language_bias.enabled:
        (tmp_path / "run").mkdir()
        provide_bias(config, progress=False)
        use_bias(config)
    built, _ = model_factory(
        config.train_config,
        config.model_config,
        language_bias=config.language_bias,
        alignment=config.alignment,
    )
    built.controller.detach()
    parts = build_on_meta(config)
    modules = {"encoder": built.encoder, "projector": built.encoder_projector, "llm": built.llm}
    for name, module in modules.items():
        tensors = [*module.parameters(), *module.buffers()]
        assert parts.weights[name] == sum(t.numel() * t.element_size() for t in tensors), name
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        assert parts.trainable[name] == trainable
        assert parts.frozen[name] == sum(p.numel() for p in module.parameters()) - trainable
    assert {n: tuple(t.shape) for n, t in parts.model.named_parameters()} == {
        n: tuple(t.shape) for n, t in built.named_parameters()
    }
    table = budget.memory(config, parts, corpus_of(config, Assumptions()), 2, 1, Assumptions())
    assert sum(size for name, size in table.items() if name.startswith("weights")) == sum(
        parts.weights.values()
    )
    assert table["AdamW"] == 2 * table["gradients"] == 8 * sum(parts.trainable.values())


@as_counted
@pytest.mark.slow
def test_at_the_papers_size_too():
    """Qwen2.5-7B and the Q-Former themselves, on the meta device: torch counts shapes alone."""
    config = compose_config(["experiment=table1_ours", "language_bias.enabled=false"])
    parts = build_on_meta(config)
    frames, positions, answer = 700, 150, 40
    llm, projector = parts.model.llm, parts.model.encoder_projector
    attend = torch.ones(1, 1, positions, positions, dtype=torch.bool, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tokens = projector(torch.empty(1, frames, 1280, device="meta"))
        text = torch.empty(1, positions - 80, 3584, dtype=torch.bfloat16, device="meta")
        llm(
            inputs_embeds=torch.cat([tokens.bfloat16(), text], 1),
            attention_mask=attend,
            logits_to_keep=answer + 1,
            use_cache=False,
        ).logits.sum().backward()
    counted = llm_flops(parts.llm, positions, answer, attention_backward=2).total
    counted += projector_flops(parts.projector, frames, attention_backward=2).total
    assert counted == counter.get_total_flops()


@pytest.mark.slow
def test_eight_bits_are_counted_loaded_and_trained(tmp_path):
    pytest.importorskip("bitsandbytes")
    from slam_potsa.engine import native
    from slam_potsa.model.llm import load_llm

    config = tiny.world(tmp_path)
    plain = load_llm(config.train_config, config.model_config)
    config.train_config.quantization = True
    config.model_config.llm_dtype = "float32"
    llm = load_llm(config.train_config, config.model_config)
    assert llm.model.layers[0].mlp.gate_proj.weight.dtype == torch.int8
    scales = sum(
        4 * m.out_features
        for n, m in llm.named_modules()
        if isinstance(m, nn.Linear) and n != "lm_head"
    )
    counted = build_on_meta(config).weights["llm"]
    assert counted == memory.weight_bytes(llm) + scales  # scales are attributes, no buffers
    assert counted < memory.weight_bytes(plain)

    embeds = torch.randn(2, 9, tiny.WIDTH, requires_grad=True)
    close, exact = llm(inputs_embeds=embeds).logits, plain(inputs_embeds=embeds).logits
    assert (close - exact).norm() < 0.05 * exact.norm()
    gradients = [torch.autograd.grad(out.square().sum(), embeds)[0] for out in (close, exact)]
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[1].norm()

    config.native.max_steps = 2
    state = torch.load(native.finetune(config), weights_only=True)
    assert not any(name.startswith("llm.") for name in state)
