#!/bin/bash
# Speech translation with aligned parallel speech in SLAM-LLM's own loops, on one machine.
#   bash finetune_whisper_large_qformer_qwen2.5_7b.sh              DDP
#   bash finetune_whisper_large_qformer_qwen2.5_7b.sh deepspeed    ZeRO-2, as conf/deepspeed has it
# From the environment: MODELS and DATA, folders; GPUS, how many.
export TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=1
cd "$(dirname "$0")/../../.." || exit 1
models=${MODELS:-models} data=${DATA:-data/fleurs} gpus=${GPUS:-4}
output_dir=outputs/qwen2.5-7b-fleurs-qformer-potsa-whisper-largev3

options=(
    engine=slam_llm
    hydra.run.dir=$output_dir
    model_config.llm_path=$models/Qwen2.5-7B
    model_config.encoder_path_hf=$models/whisper-large-v3
    model_config.query_len=80
    dataset_config.train_data_path=$data/train.jsonl
    dataset_config.val_data_path=$data/dev.jsonl
    dataset_config.mel_size=128
    dataset_config.pairing=random
    alignment=ot
    alignment.terms.ot.weight=10
    train_config.num_epochs=10
    train_config.warmup_steps=1000
    train_config.total_steps=100000
    train_config.lr=1e-4
    train_config.validation_interval=1000
    train_config.batch_size_training=4
    train_config.val_batch_size=4
    train_config.num_workers_dataloader=2
    train_config.output_dir=$output_dir
    log_config.log_file=$output_dir/train.log
    # ckpt_path=outputs/cot_st/model.pt
    # train_config.train_parts=[projector,llm.lora]
)
if [ "$1" = deepspeed ]; then
    deepspeed --num_gpus "$gpus" examples/potsa/finetune_deepspeed.py deepspeed_config=zero2_bf16 "${options[@]}"
else
    torchrun --standalone --nproc_per_node "$gpus" examples/potsa/finetune.py "${options[@]}"
fi
