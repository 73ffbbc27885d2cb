"""What a training step costs: time by part, peak memory, waits for the GPU, the busiest kernels."""

from __future__ import annotations

import gc
import os
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

PARTS = ("encode", "project", "LLM forward", "transport", "backward", "optimizer", "rest")


def machine(device: str) -> str:
    """Its processor and torch, as a record names them."""
    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{next(iter(models), name)}, {os.cpu_count()} cores"
    return f"{platform.system()} {name}, torch {torch.__version__}"


class Clock:
    """Time by part: `mark(part)` says whose the time since the last mark was."""

    def __init__(self, device: str, parts: Sequence[str] = PARTS):
        self.on_gpu, self.parts, self._marks = device == "cuda", parts, []

    def start(self) -> None:
        self._marks = []
        self.mark("")

    def mark(self, part: str) -> None:
        now = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            now.record()
        self._marks.append((part, now))

    def seconds(self) -> dict[str, float]:
        """By part, and all of it as `step`."""
        if self.on_gpu:
            torch.cuda.synchronize()
        spent: Counter[str] = Counter(dict.fromkeys(self.parts, 0.0))
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            spent[part] += before.elapsed_time(now) / 1e3 if self.on_gpu else now - before
        return {**spent, "step": sum(spent.values())}


class Peak:
    """The most bytes held within, of the device's allocator or of the process."""

    def __init__(self, device: str):
        self.on_gpu, self.bytes = device == "cuda", {}

    def __enter__(self) -> Peak:
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # Linux: the peak of the process begins anew
            Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.on_gpu:
            free, total = torch.cuda.mem_get_info()
            held = torch.cuda.max_memory_reserved()
            self.bytes = {"allocated": torch.cuda.max_memory_allocated(), "reserved": held}
            self.bytes["CUDA context"] = total - free - torch.cuda.memory_reserved()
        elif Path("/proc/self/status").is_file():
            lines = Path("/proc/self/status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            self.bytes = {"process": 1024 * int(fields["VmHWM"].split()[0])}


def waits(step: Callable[[], None]) -> list[str]:
    """Where a step made the host wait for the GPU: the lines of Python that asked."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = [f"{Path(w.filename).name}:{w.lineno}" for w in found if "synchroniz" in str(w.message)]
    return [f"{count} x {line}" for line, count in Counter(lines).most_common()]


def busiest(step: Callable[[], None], device: str, rows: int = 14) -> list[dict[str, Any]]:
    """The kernels of a step that take the most time, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    spent = [
        (e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count, e.key)
        for e in found.key_averages()
    ]
    named = ("milliseconds", "calls", "name")
    most = sorted(spent, reverse=True)[:rows]
    return [dict(zip(named, (t / 1e3, n, key[:90]), strict=True)) for t, n, key in most]
