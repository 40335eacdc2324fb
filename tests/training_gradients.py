"""What torch's autograd computes on dequantised networks, in float64; `training_gradients.npz` holds the numbers, rounded to float32.

Run by hand, in an environment of its own that sees this project:

    pip install torch==2.13.0 numpy==2.4.6 numba==0.68.1
    python -m tests.training_gradients

A case is a random network with the integers that it is trained with: its working weights, their masks and its samples, which are written
beside torch's numbers, so that the file stays right whatever calibration becomes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, MaxPool, Relu, Trainable
from accel.graph.window import Window, image
from accel.sparsity import Pattern
from accel.training import step
from accel.training.recipe import Recipe
from accel.training.state import State
from tests.random_training import Builder

FIXTURE = Path(__file__).with_name("training_gradients.npz")
Array = NDArray[Any]


class Case(NamedTuple):
    """A network as it is trained, and one batch."""

    network: Trainable
    config: AcceleratorConfig
    recipe: Recipe
    state: State
    x: Array
    labels: Array


def plain() -> Trainable:
    """Write products, ReLU and both poolings."""
    b = Builder((8, 7, 3))
    x = b.relu(b.convolution("x", "first", 8, Window(kernel=(3, 3), stride=(2, 1), pads=(1, 0, 1, 2)), biased=True), "relu")
    x = b.max_pool(x, "max", Window(kernel=(3, 3), stride=(1, 2), pads=(1,) * 4))
    x = b.convolution(x, "second", 8, Window(kernel=(3, 2), dilation=(1, 2), pads=(1,) * 4), groups=2, biased=True)
    x = b.average_pool(b.relu(x, "relu2"), "average", Window(kernel=(2, 2)))
    b.linear(x, "last", 5)
    return b.network("plain")


def residual() -> Trainable:
    """Write a residual block, two strides, a normalisation."""
    b = Builder((8, 8, 4))
    x = b.relu(b.norm(b.convolution("x", "first", 8, Window(kernel=(3, 3), pads=(1,) * 4)), "norm"), "relu")
    y = b.relu(b.convolution(x, "second", 8, Window(kernel=(3, 3), stride=(2, 2), pads=(1,) * 4), biased=True), "relu2")
    z = b.convolution(x, "short", 8, Window(stride=(2, 2)))
    x = b.relu(b.sum(b.convolution(y, "third", 8, Window(kernel=(3, 3), pads=(1,) * 4)), z, "sum"), "relu3")
    b.linear(b.average_pool(x, "mean", Window(kernel=(4, 4))), "last", 5)
    return b.network("residual")


NETWORKS = {"plain": plain, "residual": residual}
CASES = {
    f"{name}-{algorithm}-{bits}": (name, algorithm, bits)
    for name in NETWORKS
    for algorithm in ("dense", "bdwp", "sr-ste")
    for bits in (16, 8)
}


def prepare(key: str) -> Case:
    """Make a case anew."""
    name, algorithm, bits = CASES[key]
    acc, mult = (48, 15) if bits == 16 else (32, 23)
    config = AcceleratorConfig(act_bits=bits, weight_bits=bits, acc_bits=acc, mult_bits=mult)
    network, rng = NETWORKS[name](), np.random.default_rng(len(key))
    recipe = Recipe(algorithm=algorithm, pattern=Pattern(2, 4), batch=4, seed=bits)
    x = rng.standard_normal((4, *network.shapes["x"])).astype(np.float32)
    labels = rng.integers(0, 5, 4)
    state = step.prepare(network, config, recipe, x, labels)
    return Case(network, config, recipe, state, step.quantise(network, state, x), labels)


def restore(key: str, recorded: Any) -> Case:
    """Make a case with the integers of the fixture."""
    case = prepare(key)
    state = copy.deepcopy(case.state)
    for name, parameter in state.parameters.items():
        parameter.working = recorded[f"{key} {name} working"].astype(np.int64)
        parameter.mask, parameter.back = (recorded.get(f"{key} {name} {part}") for part in ("mask", "back"))
        state.formats[name].frac = int(recorded[f"{key} {name} frac"])
    state.formats["x"].frac = int(recorded[f"{key} frac"])
    return case._replace(state=state, x=recorded[f"{key} x"], labels=recorded[f"{key} labels"])


def reals(case: Case) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Return what the integers of a case stand for: parameters of FF, parameters of BP, samples."""
    forward, backward = {}, {}
    for name, parameter in case.state.parameters.items():
        real = parameter.working * 2.0 ** -case.state.formats[name].frac
        forward[name] = real if parameter.mask is None else real * parameter.mask
        backward[name] = real if parameter.back is None else real * parameter.back
    return forward, backward, case.x * 2.0 ** -case.state.formats["x"].frac


def torch_gradients(case: Case) -> dict[str, Array]:
    """Gradients of the sum of the losses, by parameter, and the logits."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Product(torch.autograd.Function):
        """Convolution that reads other weights backward."""

        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, back: Any, options: Any) -> Any:
            ctx.save_for_backward(x, w, back)
            ctx.options = options
            return functional.conv2d(x, w, **options)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (dy,), (x, w, back) = gradients, ctx.saved_tensors
            dx = nn.grad.conv2d_input(x.shape, back, dy.contiguous(), **ctx.options)
            return dx, nn.grad.conv2d_weight(x, w.shape, dy.contiguous(), **ctx.options), None, None

    def leaf(name: str) -> Any:
        leaves[name] = torch.from_numpy(forward[name].copy()).requires_grad_()
        return leaves[name]

    def padded(x: Any, window: Window, value: float = 0.0) -> Any:
        top, left, bottom, right = window.pads
        return functional.pad(x, (left, right, top, bottom), value=value)

    network, leaves = case.network, dict[str, Any]()
    forward, backward, samples = reals(case)
    tensors = {"x": torch.from_numpy(samples.reshape(len(samples), *image(samples.shape[1:]))).permute(0, 3, 1, 2)}
    for layer in network.layers:
        x, name = tensors[layer.inputs[0]], layer.name
        match layer:
            case Convolution():
                weights, back = leaf(f"{name}.weight"), torch.from_numpy(backward[f"{name}.weight"])
                options = {"stride": layer.window.stride, "dilation": layer.window.dilation, "groups": layer.groups}
                y = Product.apply(padded(x, layer.window), weights.permute(0, 3, 1, 2), back.permute(0, 3, 1, 2), options)
                if layer.biased:
                    y = y + leaf(f"{name}.bias")[:, None, None]
            case BatchNorm():
                y = functional.batch_norm(x, None, None, leaf(f"{name}.gamma"), leaf(f"{name}.beta"), True, 0.0, layer.epsilon)
            case Relu():
                y = torch.relu(x)
            case Add():
                y = x + tensors[layer.inputs[1]]
            case MaxPool():
                y = functional.max_pool2d(padded(x, layer.window, -torch.inf), layer.window.kernel, layer.window.stride)
            case AveragePool():
                y = functional.avg_pool2d(x, layer.window.kernel, layer.window.stride)
        tensors[layer.output] = y
    logits = tensors[network.output].flatten(1)
    functional.cross_entropy(logits, torch.from_numpy(case.labels), reduction="sum").backward()
    return {name: each.grad.numpy() for name, each in leaves.items()} | {"logits": logits.detach().numpy()}


def main() -> None:
    """Write the fixture."""
    written: dict[str, Array] = {}
    for key in CASES:
        case = prepare(key)
        written |= {f"{key} x": case.x, f"{key} labels": case.labels, f"{key} frac": np.array(case.state.formats["x"].frac)}
        for name, parameter in case.state.parameters.items():
            written[f"{key} {name} working"] = parameter.working.astype(np.int16)
            written[f"{key} {name} frac"] = np.array(case.state.formats[name].frac)
            for part, kept in (("mask", parameter.mask), ("back", parameter.back)):
                if kept is not None:
                    written[f"{key} {name} {part}"] = kept
        written |= {f"{key} d {name}": each.astype(np.float32) for name, each in torch_gradients(case).items()}
    np.savez_compressed(FIXTURE, **written)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options


if __name__ == "__main__":
    main()
