#!/bin/bash
# The same by SLAM-LLM's DeepSpeed loop: ZeRO stage and precision as conf/deepspeed has them.
export TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=1

run_dir=/root/slam-potsa
cd $run_dir
code_dir=examples/potsa

encoder_path_hf=/root/models/whisper-large-v3
llm_path=/root/models/Qwen2.5-7B
train_data_path=/root/data/fleurs/train.jsonl
val_data_path=/root/data/fleurs/dev.jsonl

output_dir=/root/tmp/qwen2.5-7b-fleurs-qformer-potsa-whisper-largev3-$(date +"%Y%m%d")-deepspeed

deepspeed \
    --num_gpus 4 \
    --master_port=29503 \
    $code_dir/finetune_deepspeed.py \
    engine=slam_llm \
    hydra.run.dir=$output_dir \
    model_config.llm_path=$llm_path \
    model_config.encoder_path_hf=$encoder_path_hf \
    model_config.query_len=80 \
    dataset_config.train_data_path=$train_data_path \
    dataset_config.val_data_path=$val_data_path \
    dataset_config.mel_size=128 \
    dataset_config.pairing=random \
    alignment=ot \
    alignment.terms.ot.weight=10 \
    deepspeed_config=zero2_bf16 \
    train_config.num_epochs=10 \
    train_config.warmup_steps=1000 \
    train_config.total_steps=100000 \
    train_config.lr=1e-4 \
    train_config.validation_interval=1000 \
    train_config.batch_size_training=4 \
    train_config.val_batch_size=4 \
    train_config.num_workers_dataloader=2 \
    train_config.output_dir=$output_dir \
    log_config.log_file=$output_dir/train.log
    # ckpt_path=/root/tmp/cot_st/model.pt
    # train_config.train_parts='[projector,llm.lora]'
