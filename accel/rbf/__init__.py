"""Radial-basis networks: training, fixed point, the file of a trained network and its simulation.

>>> from accel import rbf
>>> model = rbf.fit(x, y, neurons=8)  # doctest: +SKIP
>>> model.simulate(x).predictions  # doctest: +SKIP
>>> model.save("model.json")  # doctest: +SKIP
"""

from __future__ import annotations

from accel.rbf.model import Outputs, Parameters, RbfModel, Scaling
from accel.rbf.training import fit, split

__all__ = ["Outputs", "Parameters", "RbfModel", "Scaling", "fit", "split"]
