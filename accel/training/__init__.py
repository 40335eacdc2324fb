"""Sparse training as the accelerator does it: fixed-point steps, algorithms, epochs and checkpoints."""
