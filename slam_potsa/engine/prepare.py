"""What happens before the first step: resume or start anew, check all inputs, estimate biases.

The first rank does it while the others wait.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.config.alignment import ANSWER, TEACHER, TEXT
from slam_potsa.data.dataset import read_rows, training_items
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import check_manifest, manifest_hash, read_manifest
from slam_potsa.data.order import ranks
from slam_potsa.data.rows import Rows, column, heard
from slam_potsa.data.tasks import require
from slam_potsa.engine.encode import estimate_bias
from slam_potsa.engine.run_directory import (
    BIAS,
    MODEL,
    RESUMED,
    changes_since,
    clear,
    file_hash,
    last_checkpoint,
    read_state,
    remove_unfinished,
    trained_from,
    write_config,
)
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.files import atomic_write
from slam_potsa.model.checkpoint import TRAINED_TABLE, carried_bias, read_checkpoint
from slam_potsa.model.encoder import (
    SpeechEncoder,
    encoder_config,
    encoder_fingerprint,
    encoder_state,
    load_encoder,
)
from slam_potsa.model.factory import build_schedule, build_terms
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.llm import llm_layers
from slam_potsa.model.taps import layer_of
from slam_potsa.provenance import seal

logger = logging.getLogger(__name__)
PATIENCE = timedelta(hours=12)  # what other ranks wait while the first checks and estimates


def quieten() -> None:
    """No bars for loading weights, no warnings about forked tokenizers: our own bar is enough."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # bitsandbytes: of 4-bit products when it is imported, of bfloat16 at every product of 8 bits.
    for name in ("backends.cpu.ops", "autograd._functions"):
        logging.getLogger(f"bitsandbytes.{name}").setLevel("ERROR")
    # accelerate's own business with torch: nothing that a user of this package can change.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def first_rank_first(*made: Path) -> Iterator[SimpleNamespace]:
    """Rank 0 enters with `is_first` while the others wait, without, until it has left.

    They enter with what it then has in `told`, a text.
    `made` are files that it may write and the others read: a machine that does not share its disk
    gets them by the same path. Where it fails, the others leave quietly. By the launcher's
    key-value store: SLAM-LLM creates the process group itself later, and a group made and destroyed
    before leaves addresses in that store that make the second one fail.
    """
    if ranks() == 1:
        yield SimpleNamespace(is_first=True, told="")
        return
    store, rank, _ = next(dist.rendezvous("env://"))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # a restarted launch keeps its store
    key = f"slam_potsa/{start}/prepared"
    turn = SimpleNamespace(is_first=rank == 0, told="")
    if turn.is_first:
        try:
            yield turn
        except BaseException:
            store.set(key, "failed")
            raise
        for path in made:
            store.set(f"{key}/{path.name}", path.read_bytes() if path.is_file() else b"")
        store.set(f"{key}/told", turn.told)
        store.set(key, "done")
        # A store that lives in this process must outlive their reading.
        store.wait([f"{key}/seen/{other}" for other in range(1, ranks())])
        return
    store.wait([key], PATIENCE)
    if store.get(key) == b"failed":
        sys.exit(2)
    for path in made:
        content = store.get(f"{key}/{path.name}")
        if content and not (path.is_file() and path.read_bytes() == content):
            seal(path).unlink(missing_ok=True)
            atomic_write(path, content)
    turn.told = store.get(f"{key}/told").decode()
    store.set(f"{key}/seen/{rank}", "yes")
    yield turn


def prepare_together(config: PotsaConfig) -> Path | None:
    """The first rank prepares; returns the checkpoint that it found, from which all resume.

    Raises InputError where this rank's machine lacks a file of it.
    """
    output_dir = Path(config.train_config.output_dir)
    with first_rank_first(output_dir / BIAS) as turn:
        if turn.is_first:
            resume = checkpoint_to_resume(config)
            prepare(config, resume)
            turn.told = resume.name if resume else ""
    use_bias(config)
    if not turn.told:
        return None
    checkpoint, own = output_dir / turn.told, f"rng_state_{os.environ.get('RANK')}.pth"
    files = [checkpoint / name for name in (*RESUMED, own) if ranks() > 1]
    anew = "the first process resumes from it; copy it here, or give native.resume=never"
    refuse(f"{path}: not on this machine, and {anew}" for path in files if not path.is_file())
    return checkpoint


def checkpoint_to_resume(config: PotsaConfig) -> Path | None:
    """The last complete one, unless `native.resume` is "never"."""
    fresh = config.native.resume == "never"
    return None if fresh else last_checkpoint(config.train_config.output_dir)


def prepare(config: PotsaConfig, resume: Path | None) -> None:
    """Check all inputs, then write the run directory. Raises InputError before it is touched."""
    check_resumable(config, resume, ranks())
    check_inputs(config)
    for name in config.alignment.terms.keys() - config.alignment.active.keys():
        logger.warning("alignment.terms.%s weighs 0: training goes as if it were not there", name)
    if resume is None:
        for manifest in manifests_to_hear(config):
            check_recordings(manifest)
        replaced = config.native.resume == "never"
        clear(Path(config.train_config.output_dir), replace=replaced)
    remove_unfinished(config.train_config.output_dir)
    write_config(config)
    provide_bias(config)


def check_resumable(config: PotsaConfig, checkpoint: Path | None, processes: int) -> None:
    """Raise InputError where what lies in the run directory is of another training."""
    if config.native.resume == "never":
        return
    output_dir = Path(config.train_config.output_dir)
    anew = "choose another train_config.output_dir, or start it anew with native.resume=never"
    if checkpoint is None:
        if (output_dir / MODEL).exists():
            raise InputError(
                f"{output_dir} holds a trained {MODEL} but no checkpoint to continue from; {anew}"
            )
        return
    before = read_state(checkpoint)
    if changed := changes_since(before["made_from"], trained_from(config, ["weights"])):
        raise InputError([f"{checkpoint} was made from something else; {anew}", *changed])
    if before["world_size"] != processes:
        raise InputError(
            f"{checkpoint} was written by {before['world_size']} processes, now there are "
            f"{processes}: batches and their order would differ; continue with the same number"
        )


# -- inputs ----------------------------------------------------------------------------------------


def check_inputs(config: PotsaConfig) -> None:
    """Raise InputError with what is wrong with encoder, manifests and stored features."""
    problems: list[str] = []
    for check in (_check_encoder, _check_layers, _check_training, _check_validation):
        with collecting(problems):
            check(config)
    refuse(problems)


def _check_encoder(config: PotsaConfig) -> None:
    """Mel bands and stored features are this encoder's."""
    store, model = config.dataset_config.feature_store, config.model_config
    layers = config.train_config.encoder_layers or 0
    if store:
        FeatureStore.open(store, _fingerprint(config))
        return
    whisper = encoder_config(model.encoder_path_hf)
    if layers > whisper.encoder_layers:
        raise InputError(
            f"train_config.train_parts: encoder.last_{layers}, but {model.encoder_path_hf} has "
            f"{whisper.encoder_layers} layers"
        )
    check_mels(config, whisper.num_mel_bins)


def check_mels(config: PotsaConfig, bands: int) -> None:
    """Raise InputError where recordings would have others than the encoder's."""
    if config.dataset_config.mel_size != bands:
        raise InputError(
            f"dataset_config.mel_size={config.dataset_config.mel_size}, but "
            f"{config.model_config.encoder_path_hf} reads {bands} mel bands: set it to {bands}"
        )


def _check_layers(config: PotsaConfig) -> None:
    """Terms compare layers that Q-Former and LLM have."""
    model = config.model_config
    layers = {"qformer": model.qformer_layers} if model.encoder_projector == "q-former" else {}
    if any("llm." in side for side in config.alignment.sides):
        layers["llm"] = llm_layers(model.llm_path)
    counts, choices, problems = [layers.get(part, 1000) for part in ("qformer", "llm")], (), []
    terms = build_terms(config.alignment)
    try:
        schedule = build_schedule(config.alignment.schedule, terms, *counts)
        choices = schedule.candidates if schedule else ()
    except ValueError as error:
        problems.append(f"alignment: {error}")
    for term in terms:
        for name in (side for pair in term.tap_pairs(choices) for side in pair):
            try:
                layer_of(name.removeprefix(TEACHER), layers)
            except ValueError as error:
                problems.append(f"alignment.terms.{term.name}: {error}")
    refuse(problems)


def _start(config: PotsaConfig) -> dict[str, Tensor]:
    """The checkpoint that this training starts from, where it is there."""
    path = config.ckpt_path
    return read_checkpoint(path) if path and Path(path).exists() else {}


def _load_encoder(config: PotsaConfig) -> SpeechEncoder:
    """As this training begins: with the weights that stages before have trained."""
    model = config.model_config
    return load_encoder(model.encoder_path_hf, model.encoder_window, _start(config))


def _fingerprint(config: PotsaConfig) -> str:
    model = config.model_config
    if encoder_state(_start(config)):
        return _load_encoder(config).fingerprint()
    return encoder_fingerprint(model.encoder_path_hf, model.encoder_window)


def _check_rows(data: DatasetConfig, option: str, *needs: str) -> Rows:
    """Every row has what tasks and terms need, and its features are stored where any are read."""
    manifest = getattr(data, option)
    if not manifest:
        raise InputError(f"dataset_config.{option} is not set: give it a manifest")
    joining = data.joining if option == "train_data_path" else ()
    rows = read_rows(data, manifest, joining, needs)
    require(data, data.tasks, rows)
    if data.feature_store:
        FeatureStore.open(data.feature_store).require(heard(rows, "key"))
    return rows


def _check_validation(config: PotsaConfig) -> None:
    data = config.dataset_config
    if config.train_config.run_validation and data.val_data_path != data.train_data_path:
        _check_rows(data, "val_data_path")


def _check_training(config: PotsaConfig) -> None:
    """Rows, pairs where a term compares a row with its partner's, answers of the teacher."""
    data, sides = config.dataset_config, config.alignment.sides
    reads_text = any(side.startswith(TEXT) for side in sides)
    rows = _check_rows(data, "train_data_path", *["transcript"] * reads_text)
    path, items = data.train_data_path, training_items(data)
    logger.info("%s: %d items, %d of them pairs", path, len(items), items.num_pairs)
    if left := items.left_out:
        logger.warning("%s: %d recordings that join meet no translation: left out", path, left)
    compares = any(term.rows == "pairs" for term in config.alignment.active.values())
    if compares and not items.num_pairs:
        raise InputError(
            f"{path}: no sentence_id is spoken in two languages, so there is nothing to align; use "
            "the same sentence_id for the same meaning, or alignment=none"
        )
    _check_table(config, rows)
    joins = np.isin(column(rows, "language"), data.joining)
    wrong = np.flatnonzero(joins & (rows.lacks("target") == (ANSWER in sides)))
    told = "a target, which nothing reads but alignment=join_kl: null it, or do not let them join"
    if ANSWER in sides:
        told = "no target: write it with `slam-potsa pseudo`, by the run that is the teacher"
    if len(wrong):
        such_as = rows[int(wrong[0])].key
        raise InputError(f"{path}: {len(wrong)} rows that join, such as {such_as!r}, have {told}")


def _check_table(config: PotsaConfig, rows: Rows) -> None:
    """A trained table of a file has a row for each language; the mean of all is none to train."""
    bias = config.language_bias
    if bias.trained and bias.path:
        lacking = set(heard(rows, "language")) - set(LanguageBias.load(bias.path).languages)
        refuse(
            f"language_bias.trained=true: {bias.path} has no row for {code!r}, which is in the "
            "training manifest; null language_bias.path, so that the table begins with its means, "
            "or estimate them all with `slam-potsa bias`"
            for code in sorted(lacking)
        )


def manifests_to_hear(config: PotsaConfig) -> list[str]:
    """Those whose recordings a training reads: that of training, then that of validation."""
    data = config.dataset_config
    if data.feature_store or not data.check_audio:
        return []
    validated = [data.val_data_path] if config.train_config.run_validation else []
    return list(dict.fromkeys([data.train_data_path, *validated]))


def check_recordings(manifest: str) -> None:
    """Raise InputError with every recording that cannot be used; log what is to be known.

    A manifest that was checked before, by `slam-potsa prepare` or a training, is not heard again.
    """
    for warning in check_manifest(manifest, again=False, progress=True).warnings:
        logger.warning("%s: %s", manifest, warning)


# -- biases (eq. 1) --------------------------------------------------------------------------------


def provide_bias(config: PotsaConfig, progress: bool = True) -> None:
    """Estimate the biases of the training manifest, unless a path is given or they are there.

    A trained table of ckpt_path goes on; only languages that are new to it get their means.
    """
    data = config.dataset_config
    if not config.language_bias.enabled or config.language_bias.path:
        return
    path, manifests = Path(config.train_config.output_dir) / BIAS, [data.train_data_path]
    whole = path.is_file() and seal(path).is_file()  # a kill may come between the two
    known = LanguageBias.load(path) if whole else None
    start, made_from = _start(config), manifest_hash(manifests)
    learned = LanguageBias.from_bytes(carried_bias(start)) if TRAINED_TABLE in start else None
    made_from += file_hash(config.ckpt_path) if learned else ""
    now = made_from, _fingerprint(config)  # a trained encoder has others
    if known is not None and (known.manifest, known.fingerprint) == now:
        return
    if learned:
        learned.check_fingerprint(now[1])
        learned.check_frames(data.attend_padding)
    spoken = set(heard(read_manifest(data.train_data_path, needs=()), "language"))
    new = spoken.difference(learned.languages if learned else ())
    table = _means(config, new, progress) if new or not learned else learned
    if learned:
        rows, counts = table.biases | learned.biases, table.counts | learned.counts
        table = LanguageBias(rows, counts, fingerprint=table.fingerprint, manifest=made_from)
    table.save(path)


def _means(config: PotsaConfig, languages: set[str], progress: bool) -> LanguageBias:
    data, features, encoder = config.dataset_config, None, None
    if data.feature_store:
        features = FeatureStore.open(data.feature_store)
    else:
        encoder = _load_encoder(config).to("cuda" if torch.cuda.is_available() else "cpu")
    options = {"progress": progress, "attend_padding": data.attend_padding, "languages": languages}
    return estimate_bias([data.train_data_path], encoder, features=features, **options)


def use_bias(config: PotsaConfig) -> None:
    """Let the model load what `provide_bias` wrote (on every rank, after rank 0 wrote it)."""
    path = Path(config.train_config.output_dir) / BIAS
    if not config.language_bias.enabled:
        return
    if not config.language_bias.path and path.is_file():
        config.language_bias.path = str(path)
    if config.language_bias.path:
        bias = LanguageBias.load(config.language_bias.path)
        bias.check_frames(config.dataset_config.attend_padding)
