"""How far a result may be from a backend test's, computed from the formats: errors of the operands, through the operator, and its own.

An activation is off by half an LSB of its form. What that does to a result is found by evaluating the operator itself in float64: at the
ends of the intervals where it is monotone in each operand or linear in each (then no point between is further off); on magnitudes where it
is a sum of products; by a Lipschitz constant where it is smooth and not monotone. To it come the error of the operator's own arithmetic,
which :mod:`accel.special` states, or half an LSB and the relative error of a multiplier; and the rounding of the float32 test itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from accel.config import AcceleratorConfig
from accel.graph import network as ir
from accel.graph.network import Network, Operator, Tensor
from accel.isa import COEFFICIENT_BITS
from accel.special import divide, layer_norm, lookup, multiply, softmax
from reports.backend.cases import Case

Reals = NDArray[np.float64]
Errors = Mapping[str, Reals]

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Largest slopes of functions that rise and fall: of x * cdf(x) at sqrt(2); of x * sigmoid(a * x), whatever a; of x * tanh(softplus(x)); of
# x * (x + 3) / 6 at 3; of abs.
SLOPES = {"Gelu": 1.13, "Swish": 1.1, "Mish": 1.09, "HardSwish": 1.5, "Abs": 1.0}
SINGLE = 2.0**-24  # half an LSB of a float32 significand, relative


def evaluate(case: Case, changed: Mapping[str, Any]) -> list[Reals]:
    """Run the node in float64 on other inputs than the test's."""
    inputs = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in case.inputs.items()} | dict(changed)
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(case.model).run(None, inputs)
    return [np.asarray(each, np.float64) for each in results]


def operand_errors(case: Case, network: Network) -> dict[str, float]:
    """Half an LSB of each activation, and what float32 adds."""
    found: dict[str, float] = {}
    for port in network.inputs:
        half = network.tensors[port.tensor].scale / 2 if port.real else 0.0
        x = np.abs(case.activations[port.name].astype(np.float64)).max(initial=0.0)
        found[port.name] = max(found.get(port.name, 0.0), half * (1 + 2.0**-20) + 2 * SINGLE * float(x) * (half > 0))
    return found


def result_bounds(case: Case, network: Network, config: AcceleratorConfig) -> dict[str, Reals]:
    """Bound of each output, element by element.

    Parameters
    ----------
    case : Case
    network : Network
        What it was imported as.
    config : AcceleratorConfig
        What it runs on.
    """
    tensors = {port.name: network.tensors[port.tensor] for port in network.outputs}
    return {
        name: spread + _arithmetic(case, network, config, tensors[name]) + _precision(case, at, name)
        for at, (name, spread) in enumerate(operand_bounds(case, network).items())
        if name in tensors
    }


def operand_bounds(case: Case, network: Network) -> dict[str, Reals]:
    """Bound of what the errors of the operands do to each output, element by element."""
    return dict(zip(case.outputs, _propagated(case, network, operand_errors(case, network)), strict=False))


def _precision(case: Case, at: int, name: str) -> Reals:
    """Count the rounding of the test's own numbers: what they are off from the node in float64, and a few operations in float32."""
    stated = case.outputs[name].astype(np.float64)
    off = np.abs(evaluate(case, {})[at] - stated)
    if (off > max(case.rtol, case.precision(name)) * np.abs(stated) + case.atol).any():
        raise AssertionError(f"{case.name} must be within its own tolerance of the node in float64, not off by {off.max()}")
    return np.asarray(off + 4 * SINGLE * np.abs(stated))


# Errors of operands, through the operator.


def _propagated(case: Case, network: Network, errors: Mapping[str, float]) -> list[Reals]:
    names = list(case.activations)
    x = case.activations[names[0]].astype(np.float64)
    e = errors.get(names[0], 0.0)
    if case.kind in PRODUCTS:
        return [_products(case, network, errors)]
    if case.kind in SLOPES:
        return [np.full(x.shape, SLOPES[case.kind] * e)]
    if case.kind == "PRelu":
        return [np.broadcast_to(np.maximum(1, np.abs(case.inputs[case.node.input[1]].astype(np.float64))) * e, x.shape)]
    if case.kind in ("Softmax", "LogSoftmax"):
        # Each exponential is off by a factor between exp(-e) and exp(e), and so is their sum.
        y = evaluate(case, {})[0]
        return [y * np.expm1(2 * e) if case.kind == "Softmax" else np.full(y.shape, 2 * e)]
    if case.kind in ("LayerNormalization", "InstanceNormalization", "GroupNormalization"):
        return _normalised(case, x, e)
    if case.kind in ("Pad", "Resize"):  # what they add is a number of the same form
        return [np.full(case.outputs[case.node.output[0]].shape, e)]
    return _corners(case, errors)


def _corners(case: Case, errors: Mapping[str, float]) -> list[Reals]:
    """Largest difference at the corners of the box that the operands lie in."""
    exact = evaluate(case, {})
    worst = [np.zeros(each.shape) for each in exact]
    for signs in itertools.product((-1, 1), repeat=len(errors)):
        moved = {name: case.activations[name].astype(np.float64) + sign * e for (name, e), sign in zip(errors.items(), signs, strict=True)}
        for at, each in enumerate(evaluate(case, moved)):
            with np.errstate(invalid="ignore"):
                worst[at] = np.fmax(worst[at], np.abs(each - exact[at]))
    return worst


def _products(case: Case, network: Network, errors: Mapping[str, float]) -> Reals:
    """``|x + dx| |w + dw| - |x| |w|`` summed, of activations and weights alike; and the rounding of the bias to units of a product."""
    first, second = case.node.input[:2]
    silent = {name: np.zeros_like(case.inputs[name], np.float64) for name in case.node.input[2:3]}
    x, w = (np.abs(case.inputs[name].astype(np.float64)) for name in (first, second))
    dx, dw = np.full(x.shape, errors[first]), np.full(w.shape, errors.get(second, 0.0))
    more = 0.0
    for operator in network.operators:
        if isinstance(operator, ir.MatrixProduct | ir.TransposedConvolution) and operator.multiplier is not None:
            scale = operator.multiplier * network.tensors[operator.output].scale / network.tensors[operator.inputs[0]].scale
            dw = np.full(w.shape, scale.max() / 2)
            more = float(scale.max() * network.tensors[operator.inputs[0]].scale / 2)

    def sums(a: Reals, b: Reals) -> Reals:
        return np.abs(evaluate(case, silent | {first: a, second: b})[0])

    return sums(dx, w) + sums(x, dw) + sums(dx, dw) + more + (w.size + 2) * SINGLE * sums(x, w)  # no sum has more terms


def _normalised(case: Case, x: Reals, e: float) -> list[Reals]:
    """``(x - mean) / deviation * gain``: mean and deviation are off by e at most, the centred element by 2 e."""
    if case.kind == "LayerNormalization":
        axes = tuple(range(case.attributes.get("axis", -1) % x.ndim, x.ndim))
        rows, gain = x, np.abs(case.inputs[case.node.input[1]].astype(np.float64))
    else:
        groups = case.attributes["num_groups"] if "num_groups" in case.attributes else x.shape[1]
        rows = x.reshape(x.shape[0], groups, -1)
        gain = np.abs(case.inputs[case.node.input[1]].astype(np.float64)).reshape(1, -1, *[1] * (x.ndim - 2))
        axes = (2,)
    deviation = np.sqrt(rows.var(axes, keepdims=True) + case.attributes.get("epsilon", 1e-5))
    element = np.abs(rows - rows.mean(axes, keepdims=True)) / deviation
    least = np.maximum(deviation - e, np.sqrt(case.attributes.get("epsilon", 1e-5)))
    spread = ((2 * e + element * e) / least).reshape(x.shape) * gain
    return [spread, np.full(deviation.shape, e), e / (deviation * least)]


# Errors of the operators' own arithmetic.


def _arithmetic(case: Case, network: Network, config: AcceleratorConfig, output: Tensor) -> float:
    """Sum of what the operators before an output add, none of which makes an error before it larger but the first."""
    needed, total = {output.name}, 0.0
    for operator in reversed(network.operators):
        if operator.output in needed:
            needed.update(operator.inputs)
            total += _own(case, network, operator, config) * network.tensors[operator.output].scale
    return total


def _own(case: Case, network: Network, operator: Operator, config: AcceleratorConfig) -> float:
    """Return what an operator's result is off by [output LSB]."""
    inputs, output = [network.tensors[name] for name in operator.inputs], network.tensors[operator.output]
    match operator:
        case ir.Move() | ir.ArgMax():
            return 0.0
        case ir.Host():
            return 0.5 + 2.0**-10  # float32 is that fine beside a form of 16 bits
        case ir.Lookup():
            return _table(case, operator, inputs[0], output)
        case ir.Softmax():
            made = softmax.SoftmaxParameters.of(
                length=inputs[0].shape[-1], step=operator.step, scale=operator.scale, logarithm=operator.logarithm, **_ends(operator)
            )
            return softmax.bound(made, operator.step, operator.scale)
        case ir.LayerNorm():
            norm = layer_norm.LayerNormParameters.of(epsilon=operator.epsilon, gamma=operator.gamma, beta=operator.beta, **_ends(operator))
            return layer_norm.bound(norm, operator.gamma, operator.beta)
        case ir.Multiply():
            fields = {"zero_points": operator.zero_points, "multiplier": operator.multiplier, **_ends(operator)}
            product = multiply.MultiplyParameters.of(**fields, mult_bits=min(config.mult_bits, multiply.MULT_BITS))
            return multiply.bound(product, operator.multiplier)
        case ir.Divide():
            quotient = divide.DivideParameters.of(zero_points=operator.zero_points, multiplier=operator.multiplier, **_ends(operator))
            return divide.bound(quotient, operator.multiplier)
    span = max(output.zero_point - output.format.lo, output.format.hi - output.zero_point)
    rounded = 0.5 + span / (2.0**config.mult_bits - 1)  # a result beyond the span is clipped on both sides
    if isinstance(operator, ir.Sum):
        top = max(map(abs, operator.multipliers))
        if operator.offset is not None or min(map(abs, operator.multipliers)) != top:
            reach = sum(max(x.zero_point - x.format.lo, x.format.hi - x.zero_point) for x in inputs) + 1
            rounded += reach * top / 2.0 ** (COEFFICIENT_BITS - 1)
    return rounded


def _ends(operator: ir.Arithmetic) -> dict[str, Any]:
    return {"zero_point": operator.zero_point, "lo": operator.lo, "hi": operator.hi, "rounding": operator.rounding}


def _table(case: Case, operator: ir.Lookup, before: Tensor, after: Tensor) -> float:
    """Of a table, what :func:`accel.special.lookup.bound` finds for its function; without a unit it is exact but for its rounding."""
    if not operator.units:
        return 0.5
    known = {name: value.decode() if isinstance(value, bytes) else value for name, value in case.attributes.items()}
    function = lookup.FUNCTIONS[case.kind](bits=max(before.bits, after.bits), **known)
    return lookup.bound(function, before, after, after.format.lo, after.format.hi)
