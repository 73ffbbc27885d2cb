#!/bin/bash
# SLAM-LLM's own batch decoder, one GPU; then the scores of each language.
export CUDA_VISIBLE_DEVICES=0
export TOKENIZERS_PARALLELISM=false

run_dir=/root/slam-potsa
cd $run_dir
code_dir=examples/potsa

encoder_path_hf=/root/models/whisper-large-v3
llm_path=/root/models/Qwen2.5-7B
test_data_path=/root/data/fleurs/test.jsonl

output_dir=/root/tmp/qwen2.5-7b-fleurs-qformer-potsa-whisper-largev3-20261126
ckpt_path=$output_dir/model.pt
decode_log=$output_dir/decode_fleurs_test_beam4

python $code_dir/inference.py \
    engine=slam_llm \
    hydra.run.dir=$output_dir \
    model_config.llm_path=$llm_path \
    model_config.encoder_path_hf=$encoder_path_hf \
    model_config.query_len=80 \
    dataset_config.test_data_path=$test_data_path \
    dataset_config.mel_size=128 \
    train_config.val_batch_size=4 \
    train_config.num_workers_dataloader=2 \
    train_config.output_dir=$output_dir \
    log_config.log_file=$output_dir/decode.log \
    decode.num_beams=4 \
    decode_log=$decode_log \
    ckpt_path=$ckpt_path

slam-potsa score ${decode_log}_pred --manifest $test_data_path --preset potsa
