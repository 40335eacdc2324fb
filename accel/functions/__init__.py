"""Nonlinear units as data: datapaths, the methods that make them, and the generator that chooses the cheapest."""
