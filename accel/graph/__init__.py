"""The network: its operators, importers and the networks that ship with the package."""

from __future__ import annotations

from accel.graph.files import builtin, load
from accel.graph.network import Network

__all__ = ["Network", "builtin", "load"]
