"""Importers of the operators, one function per operator: see :mod:`accel.graph.operators.registry`."""

from __future__ import annotations

from accel.graph.operators import convolution, elementwise, moves, pooling, products, quantisers, rows
from accel.graph.operators.registry import OPERATORS, OnHost, Site, imports

__all__ = ["OPERATORS", "OnHost", "Site", "convolution", "elementwise", "imports", "moves", "pooling", "products", "quantisers", "rows"]
