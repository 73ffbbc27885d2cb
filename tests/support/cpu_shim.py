"""Runs the unmodified SLAM-LLM, which trains on CUDA only, on a machine without CUDA.

    SLAM_LLM_SRC=<SLAM-LLM>/src torchrun --nproc_per_node N cpu_shim.py ENTRY.py [its arguments]

Patches torch in this process (never a file of SLAM-LLM): devices become the CPU, NCCL becomes gloo.
Then ENTRY.py runs as __main__. What only a GPU shows it cannot: fp16 with loss scaling (autocast
maps to bfloat16), DDP moving its inputs, hangs of NCCL (gloo aborts instead).
"""

import functools
import os
import runpy
import sys
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch  # noqa: E402 - reads the environment above
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

CPU = torch.device("cpu")


def _is_cuda(device) -> bool:
    is_index = isinstance(device, int) and not isinstance(device, bool)
    return is_index or (isinstance(device, str | torch.device) and str(device).startswith("cuda"))


def _on_cpu(method):
    """`.to(0)`, `.to("cuda:0")` and `.to(device="cuda")` stay on the CPU."""

    @functools.wraps(method)
    def to(self, *args, **kwargs):
        if args and _is_cuda(args[0]):
            args = (CPU, *args[1:])
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        return method(self, *args, **kwargs)

    return to


class _CpuAutocast(torch.autocast):
    def __init__(self, *_args, **_kwargs):
        super().__init__("cpu", dtype=torch.bfloat16)


def patch_torch() -> None:
    torch.Tensor.to, nn.Module.to = _on_cpu(torch.Tensor.to), _on_cpu(nn.Module.to)
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self
    nothing = ("set_device", "empty_cache", "reset_max_memory_allocated", "reset_peak_memory_stats")
    answers = dict.fromkeys(nothing) | {"current_device": CPU}
    answers |= dict.fromkeys(("memory_allocated", "max_memory_allocated", "max_memory_reserved"), 0)
    answers["memory_stats"] = {"active_bytes.all.peak": 0}
    answers["device_count"] = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.amp.autocast = _CpuAutocast  # GradScaler switches itself off without CUDA
    make_group, make_ddp = dist.init_process_group, DistributedDataParallel.__init__

    def init_process_group(backend=None, *args, **kwargs):
        return make_group("gloo" if backend in (None, "nccl") else backend, *args, **kwargs)

    def init_ddp(self, module, device_ids=None, *args, **kwargs):
        return make_ddp(self, module, None, *args, **kwargs)

    dist.init_process_group = init_process_group
    DistributedDataParallel.__init__ = init_ddp


def calm_memory_trace() -> None:
    """SLAM-LLM watches its memory in a thread that spins; on two cores that costs half of them."""
    from slam_potsa import stand_ins

    stand_ins.install()
    from slam_llm.utils import memory_utils

    def watch(self) -> None:
        self.cpu_peak = -1
        while self.peak_monitoring:
            self.cpu_peak = max(self.cpu_mem_used(), self.cpu_peak)
            time.sleep(0.2)

    memory_utils.MemoryTrace.peak_monitor_func = watch


if __name__ == "__main__":
    sys.path.insert(0, os.environ["SLAM_LLM_SRC"])
    patch_torch()
    calm_memory_trace()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")
