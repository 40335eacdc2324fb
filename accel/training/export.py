"""A trained network as an ONNX model: the weights that FF reads, pruned, and the running statistics of normalisations.

Of floats, or quantised: then every tensor has the integer format that it had in training, and where there is no batch normalisation, whose
fixed-point arithmetic has no form in ONNX, ``accel simulate`` computes the logits of training bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from accel.config import AcceleratorConfig
from accel.errors import NetworkError
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.graph.window import Window
from accel.special import batch_norm
from accel.training import reference
from accel.training.formats import plan, settle
from accel.training.recipe import Recipe
from accel.training.state import State, Tracked

OPSET = 17  # our choice: old, so that old tools read the files
DILATED = 19  # the first whose AveragePool has dilations
QUANTISED = 21  # the first that quantises to 16 bits
INTEGERS: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16}
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
    return write(network, values(state), running(state), _told(recipe, state))


def quantised(network: Trainable, config: AcceleratorConfig, recipe: Recipe, state: State) -> bytes:
    """Write a trained network as ONNX with QuantizeLinear and DequantizeLinear: scales are powers of two, zero points 0.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
        Operands of 8 or 16 bits.
    recipe : Recipe
    state : State

    Returns
    -------
    bytes

    Raises
    ------
    NetworkError
        If ONNX has no type for an integer: operands of another width, or a bias that needs more than 32 bits at the fraction of a product.
    """
    if config.act_bits not in INTEGERS:
        raise NetworkError(f"act_bits must be one of {', '.join(map(str, INTEGERS))} to be exported as integers, not {config.act_bits}")
    held = {name: replace(each) for name, each in state.formats.items()}
    settle(network, config, held)
    return write(network, values(state), running(state), _told(recipe, state), Forms(held, INTEGERS[config.act_bits]))


def check(network: Trainable) -> None:
    """Refuse a network that :func:`export` has no form for, before it is trained.

    Parameters
    ----------
    network : Trainable
        With its parameters, whose values do not matter.

    Raises
    ------
    NetworkError
        If something has no form in ONNX that is known here.
    """
    _Writer(network, reference.parameters(network), reference.statistics(network), None).run()


def running(state: State) -> dict[str, Floats]:
    """Return running mean and variance as reals, shape (2, channels), by batch normalisation."""
    return {name: np.stack(batch_norm.real(each)).astype(np.float32) for name, each in state.statistics.items()}


def _told(recipe: Recipe, state: State) -> str:
    how = "dense" if recipe.algorithm == "dense" else f"{recipe.algorithm} {recipe.pattern}"
    return f"trained by accel: {how}, {state.step} steps"


class Forms(NamedTuple):
    """Integer formats of a quantised model.

    Parameters
    ----------
    formats : mapping of str to Tracked
        By the names of :class:`accel.training.state.State`.
    kind : numpy type
        Of activations and weights.
    """

    formats: Mapping[str, Tracked]
    kind: type[np.signedinteger[Any]]


def write(
    network: Trainable,
    parameters: Mapping[str, NDArray[Any]],
    statistics: Mapping[str, NDArray[Any]],
    told: str = "",
    forms: Forms | None = None,
) -> bytes:
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
    forms : Forms, optional
        Of a quantised model; parameters are multiples of their units then.

    Returns
    -------
    bytes

    Raises
    ------
    NetworkError
        If something has no form in ONNX that is known here.
    """
    writer = _Writer(network, parameters, statistics, forms)
    writer.run()
    graph = helper.make_graph(
        writer.nodes,
        network.name,
        [helper.make_tensor_value_info(network.input, TensorProto.FLOAT, ["batch", *writer.shape(network.input)])],
        [helper.make_tensor_value_info(network.output, TensorProto.FLOAT, ["batch", *writer.shape(network.output)])],
        writer.constants,
    )
    opset, version = (QUANTISED, 10) if forms else (DILATED, 9) if writer.dilated else (OPSET, 8)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="accel", doc_string=told)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Writer:
    """Nodes and constants so far. A tensor bears its own name; a stored image is (channels, height, width) here."""

    def __init__(
        self,
        network: Trainable,
        parameters: Mapping[str, NDArray[Any]],
        statistics: Mapping[str, NDArray[Any]],
        forms: Forms | None,
    ) -> None:
        self.network, self.parameters, self.statistics, self.forms = network, parameters, statistics, forms
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.dilated = False
        self.plan = plan(network)

    def run(self) -> None:
        """Add every layer."""
        if self.network.axes == (1, 0):
            raise NetworkError(f"{self.network.input} must be an image, rows or a vector to be exported, not channels of a sequence")
        if self.forms:
            self.round(self.network.input, f"{self.network.input}/dequantised", self.network.input)
        for layer in self.network.layers:
            self.layer(layer)
            if self.out(layer) != layer.output:
                self.round(self.out(layer), layer.output, layer.output)

    def read(self, tensor: str) -> str:
        """Name what a layer reads: of a quantised model's input, what is left of it when it is rounded."""
        return f"{tensor}/dequantised" if self.forms and tensor == self.network.input else tensor

    def out(self, layer: Layer) -> str:
        """Name what a layer writes: what is rounded then, but not before a ReLU that alone reads it, and keeps its format."""
        readers = [type(reader) for reader, _ in self.plan.readers[layer.output]]
        whole = self.forms is None or (readers == [Relu] and layer.output != self.network.output)
        return layer.output if whole else f"{layer.output}/exact"

    def unit(self, name: str, *formats: str) -> str:
        """Add the scale of a format, or of the product of several."""
        assert self.forms is not None
        frac = sum(self.forms.formats[each].frac for each in formats)
        if not -100 < frac < 100:  # far within the exponents of float32
            raise NetworkError(f"fraction of {name} must be in [-99, 99] to be exported, not {frac}")
        return self.constant(f"{name}/scale", np.array(2.0**-frac, np.float32))

    def round(self, x: str, y: str, tensor: str) -> None:
        """Quantise and dequantise in the format of a tensor."""
        assert self.forms is not None
        pair = [self.unit(tensor, self.plan.shared[tensor]), self.constant(f"{tensor}/zero", np.array(0, self.forms.kind))]
        self.node("QuantizeLinear", [x, *pair], f"{tensor}/quantised")
        self.node("DequantizeLinear", [f"{tensor}/quantised", *pair], y, f"{tensor}/dequantise")

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

    def parameter(self, name: str, numbers: NDArray[Any] | None = None, factor: str = "") -> str:
        """Add a parameter, in another order of axes if it is given; `factor` is the tensor that weights are multiplied with."""
        found = np.asarray(self.parameters[name] if numbers is None else numbers)
        if self.forms is None or name.endswith((".gamma", ".beta")):
            return self.constant(name, found.astype(np.float32))
        weights = name.endswith(".weight")
        formats = (name,) if weights else (self.plan.shared[factor], name.removesuffix("bias") + "weight")
        kind = self.forms.kind if weights else np.int32
        integers = np.rint(found.astype(np.float64) * 2.0 ** sum(self.forms.formats[each].frac for each in formats))
        if not np.iinfo(kind).min <= integers.min() <= integers.max() <= np.iinfo(kind).max:
            raise NetworkError(f"{name} must fit in {np.dtype(kind)} to be exported as integers, not reach {np.abs(integers).max():.0f}")
        pair = [self.unit(name, *formats), self.constant(f"{name}/zero", np.array(0, kind))]
        return self.node("DequantizeLinear", [self.constant(f"{name}/integers", integers.astype(kind)), *pair], name)

    def layer(self, layer: Layer) -> None:
        """Add a layer."""
        for tensor in (*layer.inputs, layer.output):
            self.shape(tensor)  # refuses what has none
        match layer:
            case Convolution(linear=True):
                self.linear(layer)
            case Convolution():
                inputs = [
                    self.image(layer),
                    self.parameter(f"{layer.name}.weight", self.parameters[f"{layer.name}.weight"].transpose(0, 3, 1, 2)),
                ]
                inputs += [self.parameter(f"{layer.name}.bias", factor=layer.inputs[0])] if layer.biased else []
                self.windowed("Conv", layer, inputs, layer.window, group=layer.groups, dilations=list(layer.window.dilation))
            case BatchNorm():
                self.normalise(layer)
            case Relu():
                self.node("Relu", [self.read(x) for x in layer.inputs], self.out(layer), layer.name)
            case Add():
                self.node("Add", [self.read(x) for x in layer.inputs], self.out(layer), layer.name)
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
        stored, x = self.network.shapes[layer.inputs[0]], self.read(layer.inputs[0])
        if len(stored) == 3:
            return x
        if len(stored) == 2:
            raise NetworkError(f"{layer.name} must read an image to be exported, not rows of shape {stored}")
        return self.node("Reshape", [x, self.constant(f"{layer.name}/shape", np.array([-1, stored[0], 1, 1]))], f"{layer.name}/image")

    def windowed(self, kind: str, layer: Layer, inputs: list[str], window: Window, **attributes: Any) -> None:
        """Add a node with a window; what is stored as a vector is flattened behind it."""
        flat = len(self.network.shapes[layer.output]) == 1
        output = f"{layer.name}/image_out" if flat else self.out(layer)
        extents = {"kernel_shape": window.kernel, "strides": window.stride, "pads": window.pads}
        self.node(kind, inputs, output, layer.name, **{name: list(each) for name, each in extents.items()}, **attributes)
        if flat:
            self.node("Flatten", [output], self.out(layer), f"{layer.name}/flatten", axis=1)

    def linear(self, layer: Convolution) -> None:
        """Add a linear layer: on rows, or on all elements of its input."""
        stored, x, y = self.network.shapes[layer.inputs[0]], self.read(layer.inputs[0]), self.out(layer)
        weights = self.parameters[f"{layer.name}.weight"]
        if len(stored) == 2 and len(self.network.shapes[layer.output]) == 2:
            product = f"{layer.name}/product" if layer.biased else y
            self.node("MatMul", [x, self.parameter(f"{layer.name}.weight", weights.reshape(layer.filters, -1).T)], product, layer.name)
            if layer.biased:
                self.node("Add", [product, self.parameter(f"{layer.name}.bias", factor=layer.inputs[0])], y, f"{layer.name}/add")
            return
        if len(stored) > 1:
            x = self.node("Flatten", [x], f"{layer.name}/flat", axis=1)
        if len(stored) == 3:
            weights = weights.transpose(0, 3, 1, 2)
        inputs = [x, self.parameter(f"{layer.name}.weight", weights.reshape(layer.filters, -1))]
        inputs += [self.parameter(f"{layer.name}.bias", factor=layer.inputs[0])] if layer.biased else []
        if len(self.network.shapes[layer.output]) == 1:
            self.node("Gemm", inputs, y, layer.name, transB=1)
            return
        self.node("Gemm", inputs, f"{layer.name}/row", layer.name, transB=1)
        extents = np.array([-1, *self.shape(layer.output)])
        self.node("Reshape", [f"{layer.name}/row", self.constant(f"{layer.name}/extents", extents)], y, f"{layer.name}/reshape")

    def normalise(self, layer: BatchNorm) -> None:
        """Add a batch normalisation; channels of rows are last in ONNX too, so there it is spelled out."""
        x = self.read(layer.inputs[0])
        mean, variance = self.statistics[layer.name]
        gamma, beta = (self.parameters[f"{layer.name}.{kind}"] for kind in ("gamma", "beta"))
        if len(self.network.shapes[layer.inputs[0]]) == 2:
            factor = (gamma / np.sqrt(variance + layer.epsilon)).astype(np.float32)
            scaled = self.node("Mul", [x, self.constant(f"{layer.name}/factor", factor)], f"{layer.name}/scaled")
            offset = self.constant(f"{layer.name}/offset", (beta - mean * factor).astype(np.float32))
            self.node("Add", [scaled, offset], self.out(layer), layer.name)
            return
        inputs = [x, self.parameter(f"{layer.name}.gamma"), self.parameter(f"{layer.name}.beta")]
        inputs += [
            self.constant(f"{layer.name}.{kind}", each.astype(np.float32)) for kind, each in (("mean", mean), ("variance", variance))
        ]
        self.node("BatchNormalization", inputs, self.out(layer), layer.name, epsilon=layer.epsilon, momentum=layer.momentum)
