"""Train. One process a GPU (or a CPU core):

    torchrun --nproc_per_node 2 examples/potsa/finetune.py experiment=demo_potsa

Every key of slam_potsa/config/ can follow as key=value; --cfg job prints the whole configuration.
"""

from slam_potsa.engine.launch import finetune

if __name__ == "__main__":
    finetune()
