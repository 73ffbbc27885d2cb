r"""Train with SLAM-LLM's DeepSpeed loop, under either launcher:

    deepspeed --num_gpus 2 examples/potsa/finetune_deepspeed.py \
        experiment=demo_potsa deepspeed_config=zero2_bf16
    torchrun --nproc_per_node 2 examples/potsa/finetune_deepspeed.py \
        experiment=demo_potsa deepspeed_config=conf/deepspeed/zero3_fp16.json

deepspeed_config names a file of conf/deepspeed/ or is the path of one of your own. "auto" in it is
filled in from train_config; what was filled in lies in the run directory as deepspeed.json.
"""

from slam_potsa.engine.launch import finetune_deepspeed

if __name__ == "__main__":
    finetune_deepspeed()
