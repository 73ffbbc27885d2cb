"""finetune_deepspeed.py, where DeepSpeed takes fp16 on any CPU.

It asks for the CPU's fast fp16 instructions; torch computes in fp16 without them, only slower.
"""

from deepspeed.accelerator import get_accelerator

from slam_potsa.engine.launch import finetune_deepspeed

if __name__ == "__main__":
    type(get_accelerator()).is_fp16_supported = lambda _self: True
    finetune_deepspeed()
