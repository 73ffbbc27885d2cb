"""Targets of transcripts by a text translation model, for rows that have none; marked synthetic.

A seq2seq model is told the languages by its tokenizer's own tokens (`fra_Latn`, `__fr__`, `fr_XX`:
the first token of its answer; `<2fr>`, `>>fra<<`: before the text); one without such tokens, of one
pair of languages, gets the text. A causal model gets an instruction, and its first line is taken;
one that thinks aloud is asked not to. An answer that was cut off, or is no line of text, is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from slam_potsa.data.jsonl import Log, is_line
from slam_potsa.data.languages import Language, find_language
from slam_potsa.data.manifest import is_checked, mark_checked, read_manifest, write_manifest
from slam_potsa.engine.decode_processes import device
from slam_potsa.engine.run_directory import model_hash
from slam_potsa.errors import InputError
from slam_potsa.model.llm import from_pretrained, llm_dtype, load_tokenizer

BATCH, MAX_NEW_TOKENS = 16, 256
ANSWER = {"add_generation_prompt": True, "enable_thinking": False}
THOUGHT = "<think>"
INSTRUCTION = (
    "Translate this sentence from {0.name} into {1.name}. Write the translation alone.\n{2}\n"
)


def fill_targets(manifest: str | Path, model: str, into: str) -> str:
    """Give the rows of `manifest` that have a transcript and no target one, in the language `into`.

    What was translated stays in `<manifest>_translated.jsonl`; an interrupted call goes on there.
    Rows in `into` itself, and empty answers, stay without. Returns what was done, in words.
    """
    path, rows, target = Path(manifest), read_manifest(manifest, needs=()), _language(into)
    lacking = [r for r in rows if r.transcript and not r.target and r.language != target.code]
    told = {"model": model, "weights": model_hash(model), "into": target.code}
    with Log(path.with_name(f"{path.stem}_translated.jsonl")) as log:
        made = {(r["language"], r["text"]): r["new"] for r in log.rows if told.items() <= r.items()}
        todo = sorted({(r.language, r.transcript) for r in lacking} - made.keys())
        translate = _translator(model, target) if todo else None
        for part in tqdm(list(_alike(todo)), path.name, unit=f"{BATCH} texts", disable=not todo):
            found = translate([text for _, text in part], find_language(part[0][0]))
            made |= dict(zip(part, found, strict=True))
            log.add({"language": p[0], "text": p[1], "new": made[p], **told} for p in part)
    mark = {"target_language": target.code, "synthetic": "target"}
    texts = {row.key: made[row.language, row.transcript] for row in lacking}
    checked = is_checked(path)
    write_manifest(
        path, (replace(r, target=texts[r.key], **mark) if texts.get(r.key) else r for r in rows)
    )
    if checked:
        mark_checked(path)
    return f"{path}: {sum(map(bool, texts.values())):,} of {len(rows):,} targets by {model}"


def _language(into: str) -> Language:
    """Raises InputError for a script or region, which no manifest tells: zh-Hant would be zh."""
    found = find_language(into)
    names = (found.locale, found.code, found.iso639_3, found.name, *found.aliases.split())
    plain = re.sub(r"[\s_-]+", "_", into).lower()
    if "_" in plain and plain not in (re.sub(r"[\s_-]+", "_", name).lower() for name in names):
        raise InputError(f"--into {into}: expected a language alone, such as {found.code}")
    return found


def _alike(todo: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Batches of one language."""
    for _, group in groupby(todo, key=lambda one: one[0]):
        own = sorted(group, key=lambda one: len(one[1]))
        yield from (own[at : at + BATCH] for at in range(0, len(own), BATCH))


def _translator(path: str, target: Language) -> Any:
    """(texts, their language) -> translations."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    option = "--translate-with"
    seq2seq = from_pretrained(AutoConfig, path, option).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    tokenizer = load_tokenizer(path)
    model = from_pretrained(kind, path, option, dtype=llm_dtype("auto")).to(device()).eval()
    tokens, codes = sorted(tokenizer.get_vocab()), hasattr(tokenizer, "src_lang")

    def token_of(language: Language) -> str:
        if not (token := _token(tokens, language)) and seq2seq and codes:
            raise InputError(f"{option} {path}: its tokenizer has no token of {language.name}")
        return token

    into = token_of(target)
    tokenizer.padding_side = "right" if seq2seq else "left"

    @torch.inference_mode()
    def translate(texts: list[str], spoken: Language) -> list[str]:
        whole = not seq2seq and bool(tokenizer.chat_template)  # it has the special tokens
        how: dict[str, Any] = {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS}
        if not seq2seq:
            texts = [INSTRUCTION.format(spoken, target, text) for text in texts]
            if whole:
                turns = [[{"role": "user", "content": text}] for text in texts]
                texts = tokenizer.apply_chat_template(turns, tokenize=False, **ANSWER)
        elif codes:
            tokenizer.src_lang = token_of(spoken).strip("_")
            how["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(into)
        elif into:
            texts = [f"{into} {text}" for text in texts]
        options = {"return_tensors": "pt", "padding": True, "add_special_tokens": not whole}
        inputs = tokenizer(texts, **options).to(model.device)
        output = model.generate(**inputs, **how)[:, 0 if seq2seq else inputs.input_ids.shape[1] :]
        answers = tokenizer.batch_decode(output, skip_special_tokens=True)
        last, ends = output[:, -1].tolist(), (tokenizer.eos_token_id, tokenizer.pad_token_id)
        cut = [output.shape[1] >= MAX_NEW_TOKENS and token not in ends for token in last]
        return ["" if c else _line(answer) for answer, c in zip(answers, cut, strict=True)]

    return translate


def _line(answer: str) -> str:
    line = " ".join((answer.strip().splitlines() or [""])[0].split())
    return line if is_line(line) and not line.startswith(THOUGHT) else ""


def _token(tokens: list[str], language: Language) -> str:
    """The vocabulary's token of a language; "" where it has none."""
    codes = "|".join([language.code, language.iso639_3, *language.aliases.split()])
    form = re.compile(rf"(?:__({codes})__|<2({codes})>|>>({codes})<<|({codes})_[A-Z][A-Za-z]+)")
    return next((token for token in tokens if form.fullmatch(token)), "")
