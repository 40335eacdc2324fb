"""A trained network as an ONNX model of floats: the weights that FF reads, pruned, and the running statistics of normalisations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from accel.errors import NetworkError
from accel.graph.network import Window
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.special import batch_norm
from accel.training.recipe import Recipe
from accel.training.state import State

OPSET, IR_VERSION = 17, 8  # our choice: the oldest that hold everything used here, so that old tools read the files
DILATED = 19  # the first whose AveragePool has dilations
Floats = NDArray[np.float32]


def values(state: State) -> dict[str, Floats]:
    """Return the working copies of all parameters as reals, weights pruned as FF reads them, by name."""
    found = {}
    for name, parameter in state.parameters.items():
        kept = parameter.working if parameter.mask is None else np.where(parameter.mask, parameter.working, 0)
        found[name] = (kept * 2.0 ** -state.formats[name].frac).astype(np.float32)
    return found


def export(network: Trainable, recipe: Recipe, state: State) -> bytes:
    """Write a trained network as ONNX.

    Parameters
    ----------
    network : Trainable
    recipe : Recipe
        Told in the model's description.
    state : State

    Returns
    -------
    bytes
        An ONNX model: float32, channels first, the batch open; equal states give equal bytes.

    Raises
    ------
    NetworkError
        If a tensor has no form in ONNX that is known here.
    """
    running = {name: np.stack(batch_norm.real(each)).astype(np.float32) for name, each in state.statistics.items()}
    told = "dense" if recipe.algorithm == "dense" else f"{recipe.algorithm} {recipe.pattern}"
    return write(network, values(state), running, f"trained by accel: {told}, {state.step} steps")


def write(network: Trainable, parameters: Mapping[str, NDArray[Any]], statistics: Mapping[str, NDArray[Any]], told: str = "") -> bytes:
    """Write a network with these parameters and running statistics as ONNX.

    Parameters
    ----------
    network : Trainable
    parameters : mapping of str to float array
        By name, as :func:`accel.training.reference.parameters` has them.
    statistics : mapping of str to float array, shape (2, channels)
        By batch normalisation.
    told : str
        Description of the model.

    Returns
    -------
    bytes

    Raises
    ------
    NetworkError
        If a tensor has no form in ONNX that is known here.
    """
    writer = _Writer(network, parameters, statistics)
    for layer in network.layers:
        writer.layer(layer)
    graph = helper.make_graph(
        writer.nodes,
        network.name,
        [helper.make_tensor_value_info(network.input, TensorProto.FLOAT, ["batch", *writer.shape(network.input)])],
        [helper.make_tensor_value_info(network.output, TensorProto.FLOAT, ["batch", *writer.shape(network.output)])],
        writer.constants,
    )
    opsets = [helper.make_opsetid("", DILATED if writer.dilated else OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION + writer.dilated, producer_name="accel", doc_string=told)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Writer:
    """Nodes and constants so far. A tensor bears its own name; a stored image is (channels, height, width) here."""

    def __init__(self, network: Trainable, parameters: Mapping[str, NDArray[Any]], statistics: Mapping[str, NDArray[Any]]) -> None:
        self.network, self.parameters, self.statistics = network, parameters, statistics
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.dilated = False

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a sample in ONNX."""
        stored = self.network.shapes[tensor]
        if len(stored) > 3:
            raise NetworkError(f"{tensor} must be of three axes or fewer to be exported, not of shape {stored}")
        return (stored[2], *stored[:2]) if len(stored) == 3 else stored

    def node(self, kind: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> str:
        """Add a node; without a name it bears that of its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name or output, **attributes))
        return output

    def constant(self, name: str, numbers: NDArray[Any]) -> str:
        """Add an initializer."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(numbers), name))
        return name

    def parameter(self, name: str, numbers: NDArray[Any] | None = None) -> str:
        """Add a parameter, in another order of axes if it is given."""
        return self.constant(name, np.asarray(self.parameters[name] if numbers is None else numbers, np.float32))

    def layer(self, layer: Layer) -> None:
        """Add a layer."""
        match layer:
            case Convolution(linear=True):
                self.linear(layer)
            case Convolution():
                inputs = [
                    self.image(layer),
                    self.parameter(f"{layer.name}.weight", self.parameters[f"{layer.name}.weight"].transpose(0, 3, 1, 2)),
                ]
                inputs += [self.parameter(f"{layer.name}.bias")] if layer.biased else []
                self.windowed("Conv", layer, inputs, layer.window, group=layer.groups, dilations=list(layer.window.dilation))
            case BatchNorm():
                self.normalise(layer)
            case Relu():
                self.node("Relu", list(layer.inputs), layer.output, layer.name)
            case Add():
                self.node("Add", list(layer.inputs), layer.output, layer.name)
            case MaxPool():
                self.windowed("MaxPool", layer, [self.image(layer)], layer.window, dilations=list(layer.window.dilation))
            case AveragePool():
                dilation = {"dilations": list(layer.window.dilation)} if layer.window.dilation != (1, 1) else {}
                self.dilated |= bool(dilation)
                self.windowed("AveragePool", layer, [self.image(layer)], layer.window, count_include_pad=int(layer.counted), **dilation)
            case _:
                raise NetworkError(f"{layer.name} must be of a kind that is computed, not {type(layer).__name__}, which is counted only")

    def image(self, layer: Layer) -> str:
        """Name the input of a layer as an image; a vector is reshaped."""
        (x,) = layer.inputs
        stored = self.network.shapes[x]
        if len(stored) == 3:
            return x
        if len(stored) == 2:
            raise NetworkError(f"{layer.name} must read an image to be exported, not rows of shape {stored}")
        return self.node("Reshape", [x, self.constant(f"{layer.name}/shape", np.array([-1, stored[0], 1, 1]))], f"{layer.name}/image")

    def windowed(self, kind: str, layer: Layer, inputs: list[str], window: Window, **attributes: Any) -> None:
        """Add a node with a window; what is stored as a vector is flattened behind it."""
        flat = len(self.network.shapes[layer.output]) == 1
        output = f"{layer.name}/image_out" if flat else layer.output
        extents = {"kernel_shape": window.kernel, "strides": window.stride, "pads": window.pads}
        self.node(kind, inputs, output, layer.name, **{name: list(each) for name, each in extents.items()}, **attributes)
        if flat:
            self.node("Flatten", [output], layer.output, f"{layer.name}/flatten", axis=1)

    def linear(self, layer: Convolution) -> None:
        """Add a linear layer: on rows, or on all elements of its input."""
        (x,) = layer.inputs
        weights = self.parameters[f"{layer.name}.weight"]
        if len(self.network.shapes[x]) == 2 and len(self.network.shapes[layer.output]) == 2:
            product = f"{layer.name}/product" if layer.biased else layer.output
            self.node("MatMul", [x, self.parameter(f"{layer.name}.weight", weights.reshape(layer.filters, -1).T)], product, layer.name)
            if layer.biased:
                self.node("Add", [product, self.parameter(f"{layer.name}.bias")], layer.output, f"{layer.name}/add")
            return
        if len(self.network.shapes[x]) > 1:
            x = self.node("Flatten", [x], f"{layer.name}/flat", axis=1)
        if len(self.network.shapes[layer.inputs[0]]) == 3:
            weights = weights.transpose(0, 3, 1, 2)
        inputs = [x, self.parameter(f"{layer.name}.weight", weights.reshape(layer.filters, -1))]
        inputs += [self.parameter(f"{layer.name}.bias")] if layer.biased else []
        if len(self.network.shapes[layer.output]) == 1:
            self.node("Gemm", inputs, layer.output, layer.name, transB=1)
            return
        self.node("Gemm", inputs, f"{layer.name}/row", layer.name, transB=1)
        extents = np.array([-1, *self.shape(layer.output)])
        self.node("Reshape", [f"{layer.name}/row", self.constant(f"{layer.name}/extents", extents)], layer.output, f"{layer.name}/reshape")

    def normalise(self, layer: BatchNorm) -> None:
        """Add a batch normalisation; channels of rows are last in ONNX too, so there it is spelled out."""
        (x,) = layer.inputs
        mean, variance = self.statistics[layer.name]
        gamma, beta = (self.parameters[f"{layer.name}.{kind}"] for kind in ("gamma", "beta"))
        if len(self.network.shapes[x]) == 2:
            factor = (gamma / np.sqrt(variance + layer.epsilon)).astype(np.float32)
            scaled = self.node("Mul", [x, self.constant(f"{layer.name}/factor", factor)], f"{layer.name}/scaled")
            offset = self.constant(f"{layer.name}/offset", (beta - mean * factor).astype(np.float32))
            self.node("Add", [scaled, offset], layer.output, layer.name)
            return
        inputs = [x, self.parameter(f"{layer.name}.gamma"), self.parameter(f"{layer.name}.beta")]
        inputs += [
            self.constant(f"{layer.name}.{kind}", each.astype(np.float32)) for kind, each in (("mean", mean), ("variance", variance))
        ]
        self.node("BatchNormalization", inputs, layer.output, layer.name, epsilon=layer.epsilon, momentum=layer.momentum)
