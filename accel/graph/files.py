"""Networks from anything that holds one: an ONNX file, a topology, a torch module, or the name of a network that ships with the package.

:func:`load` is the whole way from there to the network: read, bind, fold, write quantisation in one way, quantise what is not.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

import accel.networks
from accel.errors import ConfigError, NetworkError
from accel.graph import qonnx, qoperator
from accel.graph.fold import bind, fold
from accel.graph.graph import FLOATS, Graph, Node
from accel.graph.named import BUILDERS
from accel.graph.network import MatrixProduct, Network, Port, Tensor
from accel.graph.read import naming, read, status
from accel.graph.simplify import simplify
from accel.graph.topology import Convolution, Gemm, Topology, load_topology
from accel.graph.window import Window

if TYPE_CHECKING:
    from accel.graph.trainable import Trainable

SUFFIX = ".onnx"
FLOAT = ".float"  # before it, of a network that ships with the package in both forms
TOPOLOGY = ".csv"
SAMPLES = 4  # our choice: of standard normal numbers, where no calibration samples are given
SEED = 1  # our choice: of those samples
METHODS = ("minmax", "percentile", "mse", "entropy")  # of accel.graph.calibrate, which is loaded when it is run
WIDTHS = (4, 8, 16)  # of accel.graph.calibrate [bits]
EFFORT = 1 << 37  # our choice [multiplications]: of all of them, some seconds
HELD = 1 << 28  # our choice [elements]: of all tensors of one of them

Progress = Callable[[int, int], None]


def builtin() -> dict[str, Path]:
    """Files of the networks that ship with the package, by name."""
    return {path.stem: path for path in sorted(Path(accel.networks.__file__).parent.glob(f"*{SUFFIX}")) if "." not in path.stem}


def names() -> list[str]:
    """Names that :func:`load` knows."""
    return sorted({*builtin(), *BUILDERS})


def load(
    source: Any,
    example: Any = None,
    *,
    constants: Mapping[str, ArrayLike] | None = None,
    calibration: Mapping[str, ArrayLike] | ArrayLike | None = None,
    method: str = "minmax",
    bits: int = 8,
    seed: int | None = None,
    whole: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Network:
    """Make a network of whatever holds one.

    A float network is quantised here, from calibration samples; a quantised one keeps its own scales. Weights outside an ONNX file are read
    only from the file's own folder. Nothing is unpickled and nothing in a file is executed.

    Parameters
    ----------
    source : str, path or torch.nn.Module
        An ONNX file; a SCALE-Sim topology (.csv), which has shapes only; the name of a network that ships with the package; or a module.
    example : tensor or tuple of tensors, optional
        What the module is called with.
    constants : mapping of str to array_like, optional
        Values of graph inputs that are no activations.
    calibration : array_like or mapping of str to array_like, optional
        Samples (n, ...) of the inputs, from which the ranges of float tensors are taken. Without them a float network is calibrated on
        standard normal numbers, with a warning.
    method : str
        Of calibration: "minmax", "percentile", "mse" or "entropy"; see :func:`accel.graph.calibrate.calibrate`.
    bits : int
        4, 8 or 16, of weights and activations that are quantised here.
    seed : int, optional
        Of the weights of a network by name; without it only their shapes are known. Of the standard normal samples, too. Where nothing
        follows from `method`, `bits` or `seed`, there is a warning.
    whole : bool
        Axis 0 is not that of the samples: take shapes as they are, and one run as one sample.
    shapes : mapping of str to sequence of int, optional
        Sizes of graph inputs, the batch included, where the file leaves them open.
    progress : callable, optional
        Told how much of the calibration is done, and of how much.

    Returns
    -------
    Network

    Raises
    ------
    NetworkError
        If the source cannot be read, is not a whole and valid model, or holds something that is not supported. The message names the
        file, and the node if there is one.
    ConfigError
        If `seed`, `method` or `bits` break their rule.
    """
    options = Options(constants, calibration, method, bits, seed, whole, shapes, progress)
    if isinstance(source, str | os.PathLike) and not isinstance(os.fspath(source), bytes) and example is None:
        file = Path(source)
        if file.suffix == TOPOLOGY and os.fspath(source) not in names():
            topology = load_topology(file)
            options.unused(topology.name, depth=2)
            return products(topology)
    real = partial(trainable, source, example, constants=constants, seed=seed, whole=whole, shapes=shapes)
    return prepare(source, example, options).network(real)


def trainable(
    source: Any,
    example: Any = None,
    *,
    constants: Mapping[str, ArrayLike] | None = None,
    seed: int | None = None,
    whole: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Trainable:
    """Make the float network that is trained of whatever holds one: batch normalisation apart, quantisers gone.

    Parameters
    ----------
    source, example, constants
        As for :func:`load`, but no topology. A quantised file is taken for the float network that it approximates; what it has folded
        stays folded.
    seed : int, optional
        Of the weights of a network by name; without it only their shapes are known.
    whole, shapes
        As for :func:`load`.

    Returns
    -------
    Trainable

    Raises
    ------
    NetworkError
        If the source cannot be read, or holds something that cannot be trained. The message names the file, and the node if there is one.
    ConfigError
        If `seed` breaks its rule.
    """
    from accel.graph import training
    from accel.graph.patterns import fuse
    from accel.graph.unquantised import unquantised

    if isinstance(source, str | os.PathLike) and Path(os.fsdecode(source)).suffix == TOPOLOGY and os.fspath(source) not in names():
        raise NetworkError(f"network that is trained must have tensors between its layers, not be a topology, {os.fspath(source)!r}")
    told = Options(constants=constants, seed=seed, whole=whole, shapes=shapes)
    graph, file = _graph(source, example, told, trained=True)
    with naming(file) if file else nullcontext():
        dropped = training.dropouts(graph)
        graph = fold(bind(training.evaluating(graph), constants, whole, shapes))
        graph = unquantised(qonnx.rewrite(qoperator.rewrite(replace(graph, name=graph.name.removesuffix(FLOAT), batch=1))))
        network = training.trainable(fold(fuse(fold(graph))))
        return replace(network, dropped=(*dropped, *network.dropped))


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """What :func:`load` can be told of a network; see there.

    Parameters
    ----------
    constants, calibration, method, bits, seed, whole, shapes, progress
        As for :func:`load`.
    fallback : array_like or mapping of str to array_like, optional
        Samples of a float network that comes without calibration; without them standard normal numbers.

    Raises
    ------
    ConfigError
        If `seed`, `method` or `bits` break their rule.
    """

    constants: Mapping[str, ArrayLike] | None = None
    calibration: Mapping[str, ArrayLike] | ArrayLike | None = None
    method: str = "minmax"
    bits: int = 8
    seed: int | None = None
    whole: bool = False
    shapes: Mapping[str, Sequence[int]] | None = None
    progress: Progress | None = None
    fallback: Mapping[str, ArrayLike] | ArrayLike | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 1 << 32):
            raise ConfigError(f"seed must be an int of 0 to {(1 << 32) - 1}, not {self.seed!r}")
        if self.method not in METHODS:
            raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if type(self.bits) is not int or self.bits not in WIDTHS:
            raise ConfigError(f"bits must be one of {', '.join(map(str, WIDTHS))}, not {self.bits!r}")

    def unused(self, network: str, *, calibrated: bool = False, drawn: bool = False, depth: int) -> None:
        """Warn of settings that nothing follows from, as nothing is quantised with them, or no number drawn.

        Parameters
        ----------
        network : str
            Its name.
        calibrated, drawn : bool
            Whether something is quantised here, and drawn at random.
        depth : int
            Calls between here and who is told.
        """
        told = [] if calibrated else [name for name, usual in (("method", "minmax"), ("bits", 8)) if getattr(self, name) != usual]
        told += ["seed"] if self.seed is not None and not drawn else []
        if told:
            why = "nothing of it is quantised or drawn here" if not calibrated else "neither weights nor samples of it are drawn"
            warnings.warn(f"{' and '.join(told)} of {network} change nothing: {why}", UserWarning, stacklevel=depth + 1)


class Prepared(NamedTuple):
    """A network on its way: graphs that still run in other tools.

    Parameters
    ----------
    graph : Graph
        Canonical and quantised.
    real : Graph or None
        The float graph, where it was quantised here.
    file : Path or None
        Where it came from a file.
    """

    graph: Graph
    real: Graph | None = None
    file: Path | None = None

    def network(self, real: Callable[[], Trainable] | None = None) -> Network:
        """Import the graph; `real` gives the network that is trained."""
        from accel.graph.onnx import network

        with naming(self.file) if self.file else nullcontext():
            return network(self.graph, self.graph.name, real)


def prepare(source: Any, example: Any = None, options: Options | None = None) -> Prepared:
    """Take what holds a network up to the graph that is imported.

    Parameters
    ----------
    source, example
        As for :func:`load`, but no topology.
    options : Options, optional

    Returns
    -------
    Prepared

    Raises
    ------
    NetworkError, ConfigError
        As :func:`load`.
    """
    told = options or Options()
    graph, file = _graph(source, example, told)
    with naming(file) if file else nullcontext():
        drawn = file is None and isinstance(source, str | os.PathLike)
        return Prepared(*_quantised(graph, told, drawn=drawn), file)


def _graph(source: Any, example: Any, told: Options, *, trained: bool = False) -> tuple[Graph, Path | None]:
    """Graph as its source has it, in the form that is trained if there are two; and its file, if it comes from one."""
    if type(source).__module__.partition(".")[0] != "builtins" and hasattr(source, "state_dict"):
        from accel.graph.module import export

        return export(source, example, told.whole, trained=trained), None
    if not isinstance(source, str | os.PathLike) or isinstance(os.fspath(source), bytes):
        raise NetworkError(f"network must be a path, a torch module or one of {', '.join(names())}, not {_short(source)}")
    if example is not None:
        raise NetworkError("example must come with a torch module, not with a file or name")
    name = os.fspath(source)
    if not name:
        raise NetworkError(f"network must be an ONNX file or one of {', '.join(names())}, not an empty name")
    if name in BUILDERS:
        return BUILDERS[name](told.seed, trained=trained), None
    file = builtin().get(name, Path(name))
    if trained and name in builtin() and (real := file.with_suffix(f"{FLOAT}{SUFFIX}")).exists():
        file = real
    with naming(file):
        if status(file) is None:
            raise NetworkError(f"network must be an ONNX file or one of {', '.join(names())}, not a missing file")
    return read(file), file


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _quantised(graph: Graph, options: Options, *, drawn: bool = False) -> tuple[Graph, Graph | None]:
    """Bring a graph to its canonical form, and quantise it if it is float; the float graph comes second. `drawn`: its weights are."""
    graph = canonical(bind(graph, options.constants, options.whole, options.shapes))
    if options.calibration is None and not is_float(graph):
        options.unused(graph.name, drawn=drawn, depth=4)
        return graph, None
    from accel.graph.calibrate import calibrate
    from accel.graph.evaluate import checked

    given = (options.calibration, options.fallback)
    samples = next((each for each in given if each is not None), None)
    options.unused(graph.name, calibrated=True, drawn=drawn or samples is None, depth=4)
    if samples is None:
        samples = _samples(graph, options.seed)
    elif samples is options.calibration:
        samples = checked(graph, samples if isinstance(samples, Mapping) else dict.fromkeys(graph.inputs, samples), "calibration")
    quantised = fold(calibrate(graph, samples, options.method, options.bits, progress=options.progress))
    return quantised, graph if is_float(graph) else None


def canonical(graph: Graph) -> Graph:
    """Fold a bound graph, and write every way of quantising down as QuantizeLinear and DequantizeLinear.

    Parameters
    ----------
    graph : Graph
        Of :func:`accel.graph.fold.bind`.

    Returns
    -------
    Graph
        Folded once more, since the new operators may read constants alone.

    Raises
    ------
    NetworkError
        If a node breaks a rule of these passes.
    """
    graph = fold(graph)
    graph = fold(simplify(qonnx.rewrite(qoperator.rewrite(replace(graph, batch=1)))))
    for node in graph.nodes:
        for name in filter(None, node.outputs):
            if not prod(graph.shapes[name]):
                raise NetworkError(f"result {name!r} of {node} must have an element, not shape {graph.shapes[name]}")
    return graph


def is_float(graph: Graph) -> bool:
    """Whether nothing in a canonical graph is quantised but, perhaps, weights, and something in it is float.

    Parameters
    ----------
    graph : Graph
    """
    for node in graph.nodes:
        if node.kind in ("QuantizeLinear", "DynamicQuantizeLinear", "Trunc"):
            return False
        if node.kind == "DequantizeLinear" and node.inputs[0] not in graph.constants:
            return False
    return any(graph.kinds[name] in FLOATS for node in graph.nodes for name in node.outputs if name)


def _samples(graph: Graph, seed: int | None) -> dict[str, Any]:
    """Draw standard normal samples of every float input, and zeros of any other; as many as can be run in a few seconds."""
    held = sum(prod(shape) for name, shape in graph.shapes.items() if name not in graph.constants)
    each = sum(_effort(node, graph) for node in graph.nodes)
    if held > HELD or each > EFFORT:
        found = f"{held} elements" if held > HELD else f"{each} multiplications"
        limit = f"{HELD} elements" if held > HELD else f"{EFFORT} multiplications"
        raise NetworkError(f"network must be calibrated on samples that are given, or be of at most {limit}, not {found}")
    warnings.warn(
        f"ranges of {graph.name} are those of standard normal inputs: give calibration samples for ones that mean something",
        UserWarning,
        stacklevel=5,
    )
    rng = np.random.default_rng(SEED if seed is None else seed)
    samples: dict[str, Any] = {}
    for name, port in graph.inputs.items():
        shape = (
            max(1, min(SAMPLES, EFFORT // max(each, 1))),
            *(int(extent) for extent in (port.shape[1:] if port.shape[:1] == (1,) else port.shape)),
        )
        samples[name] = rng.standard_normal(shape, np.float32) if port.kind in FLOATS else np.zeros(shape, np.int64)
    return samples


def _effort(node: Node, graph: Graph) -> int:
    """Estimate the multiplications of a float operator, from above: its results, and what each of them takes."""
    shapes = [graph.shapes[name] for name in node.inputs if name]
    written = sum(prod(graph.shapes[name]) for name in node.outputs if name)
    if node.kind in ("Conv", "ConvTranspose", "DeformConv") and len(shapes) > 1:
        return max(written, prod(shapes[0])) * prod(shapes[1][1:])
    if node.kind in ("MatMul", "Gemm") and shapes:
        return written * max(shapes[0], default=1)
    if node.kind in ("Einsum", "GRU", "LSTM", "RNN", "Det", "DFT", "STFT", "GridSample", "Attention"):
        return prod(prod(shape) for shape in shapes[:3])
    window: Sequence[int] = node.attributes.get("kernel_shape", ())
    return (written + sum(map(prod, shapes))) * prod(window)


def products(topology: Topology) -> Network:
    """Make a network of the shapes of a topology: each layer a matrix product of 8-bit operands, from an input to an output of its own.

    Parameters
    ----------
    topology : Topology

    Returns
    -------
    Network
        Of layers without weights, at the topology's N:M patterns.
    """
    tensors: dict[str, Tensor] = {}
    operators, inputs, outputs = [], [], []
    taken: dict[str, int] = {}
    for layer in topology.layers:
        taken[layer.name] = count = taken.get(layer.name, 0) + 1
        name = layer.name if count == 1 else f"{layer.name}#{count}"
        window, before, after = _stored(layer.shape)
        for end, shape in (("input", before), ("output", after)):
            tensors[f"{name}/{end}"] = Tensor(name=f"{name}/{end}", shape=shape, bits=8, scale=1.0)
        inputs.append(Port(f"{name}/input", f"{name}/input", False))
        outputs.append(Port(f"{name}/output", f"{name}/output", False))
        operator = MatrixProduct(
            name=name,
            kind="Conv" if isinstance(layer.shape, Convolution) else "MatMul",
            inputs=(f"{name}/input",),
            output=f"{name}/output",
            zero_point=0,
            lo=-128,
            hi=127,
            window=window,
            channels=before[-1],
            filters=after[-1],
            pattern=None if layer.pattern.dense else layer.pattern,
        )
        operators.append(operator)
    return Network(name=topology.name, tensors=tensors, operators=tuple(operators), inputs=tuple(inputs), outputs=tuple(outputs))


def _stored(shape: Convolution | Gemm) -> tuple[Window, tuple[int, ...], tuple[int, ...]]:
    """Window, input and output of a layer, as they are stored; what its last window has beyond the input is padding."""
    if isinstance(shape, Gemm):
        return Window(), (shape.m, shape.k), (shape.m, shape.n)
    rows, cols = shape.outputs
    below = max((rows - 1) * shape.stride + shape.filter_height - shape.height, 0)
    right = max((cols - 1) * shape.stride + shape.filter_width - shape.width, 0)
    window = Window(kernel=(shape.filter_height, shape.filter_width), stride=(shape.stride, shape.stride), pads=(0, 0, below, right))
    return window, (shape.height, shape.width, shape.channels), (rows, cols, shape.filters)
