"""What a training would need, counted before anything is downloaded or rented.

Nothing is imported here: the command line reads `assumptions.py`, and must not wait for torch.
"""
