#!/bin/bash
# SLAM-LLM's own batch decoder, one GPU; then the scores of each language.
# From the environment: MODELS and DATA, folders.
export TOKENIZERS_PARALLELISM=false
cd "$(dirname "$0")/../../.." || exit 1
models=${MODELS:-models} data=${DATA:-data/fleurs}
output_dir=outputs/qwen2.5-7b-fleurs-qformer-potsa-whisper-largev3

options=(
    engine=slam_llm
    hydra.run.dir=$output_dir
    ckpt_path=$output_dir/model.pt
    decode_log=$output_dir/test_beam4
    model_config.llm_path=$models/Qwen2.5-7B
    model_config.encoder_path_hf=$models/whisper-large-v3
    model_config.query_len=80
    dataset_config.test_data_path=$data/test.jsonl
    dataset_config.mel_size=128
    train_config.val_batch_size=4
    train_config.num_workers_dataloader=2
    train_config.output_dir=$output_dir
    log_config.log_file=$output_dir/decode.log
    decode.num_beams=4
)
python examples/potsa/inference.py "${options[@]}" &&
    slam-potsa score "$output_dir/test_beam4_pred" --manifest "$data/test.jsonl" --preset potsa
