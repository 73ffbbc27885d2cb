r"""Decode a manifest into <decode_log>_pred, _gt and, with engine=native, _predictions.jsonl:

    python examples/potsa/inference.py experiment=demo_potsa \
        ckpt_path=outputs/demo/potsa/model.pt decode_log=outputs/demo/potsa/new_voices \
        dataset_config.test_data_path=outputs/demo/data/test_new_voices.jsonl
"""

from slam_potsa.engine.launch import inference

if __name__ == "__main__":
    inference()
