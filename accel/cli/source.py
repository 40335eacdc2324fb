"""The options that say which network a command runs, and how it is quantised."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.terminal import Progress, say
from accel.errors import NetworkError, RangeError
from accel.files import is_device

if TYPE_CHECKING:  # the model is loaded when it is run: `accel --help` does without
    from numpy.typing import NDArray

    from accel.graph.files import Prepared
    from accel.graph.network import Network
    from accel.graph.trainable import Trainable

METHODS = ("minmax", "percentile", "mse", "entropy")  # of accel.graph.calibrate, which is loaded when it is run


def add_network(parser: argparse.ArgumentParser, *, option: bool = False) -> None:
    """Add the argument, or option, that names a network, and the options of :func:`network`."""
    told = "an ONNX file, quantised or float, a SCALE-Sim topology .csv, or a name of `accel list networks`"
    if option:
        parser.add_argument("--network", metavar="NETWORK", help=f"instead of blocks: {told}")
    else:
        parser.add_argument("network", metavar="NETWORK", help=told)
        parser.add_argument("--seed", metavar="S", type=int, help="of the weights of a network by name (default: only shapes are known)")
    parser.add_argument(
        "--shapes", metavar="NAME=D,D,...", action="append", default=[],
        help="size of a graph input, the batch included, where the file leaves it open; may be given often",
    )  # fmt: skip
    group = parser.add_argument_group("float networks are quantised here")
    group.add_argument("--calibration", metavar="X", type=Path, help="samples that ranges are taken from, .npz or .npy (default: noise)")
    group.add_argument("--method", choices=METHODS, default="minmax", help="how ranges follow from samples (default: %(default)s)")
    group.add_argument("--bits", metavar="B", type=int, default=8, help="4, 8 or 16, of weights and activations (default: %(default)s)")


def network(args: argparse.Namespace) -> Network:
    """Load what the options of :func:`add_network` name; what the importer warns of is told in a line.

    Raises
    ------
    RangeError
        If inputs are given for a network that is known by its shapes alone, or a shape is not one.
    """
    from accel.graph import load
    from accel.graph.files import names
    from accel.graph.named import BUILDERS

    if getattr(args, "inputs", None):
        if args.network in BUILDERS and args.seed is None:
            raise RangeError(f"seed must be given with inputs, as {args.network} is known by its shapes alone without it")
        if args.network.endswith(".csv"):
            raise RangeError(f"inputs must be left out with the topology {args.network!r}, which is known by its shapes alone")
    if args.network not in names() and not os.path.exists(args.network):
        return load(args.network)  # says what is wrong, before samples are read
    with _telling():
        return load(args.network, **_options(args))


def trainable(args: argparse.Namespace) -> Trainable:
    """Load what `--network` or NETWORK names as it is trained; what the importer warns of is told in a line."""
    from accel.graph import files

    with _telling():
        return files.trainable(args.network, shapes=dict(map(shape, args.shapes)) or None)


def prepared(args: argparse.Namespace, fallback: Any) -> tuple[Prepared, Network]:
    """Load it with its graphs; a float one without calibration samples is calibrated on `fallback`.

    Raises
    ------
    NetworkError
        If only shapes are known.
    RangeError
        If calibration samples are given for a quantised network.
    """
    from accel.graph.files import Options, prepare
    from accel.graph.named import BUILDERS

    if args.network.endswith(".csv") or (args.network in BUILDERS and args.seed is None):
        raise NetworkError(f"network must have weights, not be {args.network!r}, shapes only")
    with _telling():
        found = prepare(args.network, options=Options(**_options(args), fallback=fallback))
        if args.calibration and found.real is None:
            raise RangeError(f"calibration must be given with a float network, not with {args.network!r}, which is quantised")
        return found, found.network()


def _options(args: argparse.Namespace) -> dict[str, Any]:
    tell = Progress(f"calibrate {args.network}")
    return {
        "seed": args.seed,
        "shapes": dict(map(shape, args.shapes)) or None,
        "calibration": read_arrays(args.calibration, what="calibration") if args.calibration else None,
        "method": args.method,
        "bits": args.bits,
        "progress": lambda done, total: tell(done, total, "samples"),
    }


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read NAME=D,D,...; the name may hold any character."""
    name, _, sizes = text.rpartition("=")
    try:
        found = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        found = ()
    if not name or not found or min(found) < 1:
        raise RangeError(f"shapes must be NAME=D,D,... of sizes of 1 or more, not {text!r}")
    return name, found


@contextmanager
def _telling() -> Iterator[None]:
    """Tell each warning in a line."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in told:
        say(str(warning.message))


def read_arrays(path: Path, name: str | None = None, what: str = "inputs") -> Any:
    """Read arrays by name from an .npz file, or one from an .npy file.

    Parameters
    ----------
    path : Path
    name : str, optional
        What the array of an .npy file is called; without it, it is returned bare.
    what : str
        What messages call the arrays.

    Returns
    -------
    dict of str to array, or array

    Raises
    ------
    RangeError
        If the file cannot be read or holds something else; pickled objects are refused.
    """
    import numpy as np

    try:
        if is_device(path):  # it may have no end, or nobody who writes to it
            raise OSError("a device or a pipe")
        found: NDArray[Any] | Any = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found if name is None else {name: found}
        return {key: found[key] for key in found.files}
    except OSError as error:
        raise RangeError(f"{what} must be a readable .npz or .npy file, not {str(path)!r} ({error.strerror or error})") from None
    except Exception as error:  # what numpy and zipfile raise for a damaged file has no common base
        reason = str(error).partition(". ")[0] or type(error).__name__  # numpy goes on to recommend unpickling
        raise RangeError(f"{what} must be a .npz or .npy file of numbers, not {str(path)!r} ({reason})") from None
