"""Cycles of each block as a function of the config: stated here only, one module per block."""
