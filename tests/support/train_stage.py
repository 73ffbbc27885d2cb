"""`python -m slam_potsa.engine.launch` as a script, for cpu_shim.py."""

from slam_potsa.engine.launch import train

if __name__ == "__main__":
    train()
