"""The searched networks: errors over all operands, formats they serve, their count as their cost."""

from __future__ import annotations

from typing import Any

import pytest

from accel.config import FunctionConfig
from accel.functions.folded import folded, plans, searched
from accel.functions.generate import design, measure


def _config(name: str, **other: Any) -> FunctionConfig:
    network = searched()[name]
    fields: dict[str, Any] = {
        "function": network.function,
        "in_bits": network.in_bits,
        "in_frac": network.in_frac,
        "out_frac": 15 if network.function == "tanh" else 16,
        "error": network.error,
    }
    return FunctionConfig(**fields | other)


@pytest.mark.parametrize("name", searched())
def test_network_keeps_its_error(name):
    """Over all operands, monotone and bounded; and the error that is told is not a looser one."""
    config = _config(name)
    found = measure(config, folded(searched()[name], config))
    assert found is not None
    worst, mean, _ = found
    assert mean < worst <= searched()[name].error < worst + 2e-7


@pytest.mark.parametrize("name", ["sigmoid-0.0189-4", "tanh-0.019-4", "gaussian-0.005-4"])
def test_further_fraction_bits(name):
    """An operand with more fraction bits, and a result with fewer or more bits, are served by the same network."""
    wide = _config(name, in_bits=18, in_frac=14, out_bits=20, out_frac=18, error=searched()[name].error * 1.05)
    assert any(plan.parameters["network"] == name for plan in plans(wide))
    assert measure(wide, folded(searched()[name], wide))


@pytest.mark.parametrize("other", [{"scale": 2.0}, {"in_frac": 11}, {"in_bits": 17}, {"error": 1e-6}, {"out_bits": 8, "out_frac": 4}])
def test_no_network_for_other_formats(other):
    """Integer bits, scale, error and a result too short exclude a network."""
    assert not list(plans(_config("sigmoid-0.0189-4", **other)))


def test_generator_takes_the_counted_network():
    """A network's own count is its cost."""
    config = _config("gaussian-0.005-4")
    found = design(config)
    assert (found.parameters["network"], found.cost) == ("gaussian-0.005-4", 42)
