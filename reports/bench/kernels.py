"""Time the fast kernels against peers, in the same run: `python -m reports.bench.kernels [--rounds N] [--size N]`.

Contenders take turns, each round all of them once, so that other load on the machine meets them alike. A ratio is the median over rounds of
the peer's time over ours in the same round. Before each turn everybody's idle threads have gone to sleep, and an untimed call has woken the
contender's own. All outputs are compared to the byte before any is timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from numpy.typing import NDArray

from accel import presets
from accel.config import AcceleratorConfig
from accel.kernels import simd
from accel.kernels.gemm import SEQUENTIAL, Weights, gemm, routes
from accel.kernels.requantise import Requantisation
from accel.sparsity import Pattern, prune

REST = 0.2  # between turns [s]: OpenBLAS's idle threads keep a core busy for 2**28 cycles, longest of all
INT8 = AcceleratorConfig(name="int8", act_bits=8, weight_bits=8, acc_bits=32)
INT16 = presets.load("sat-vcu1525")
NARROW = AcceleratorConfig(name="narrow", act_bits=8, weight_bits=8, acc_bits=14)


class Bench(NamedTuple):
    """One comparison: contenders by name, ours first; all but those in `apart` give the same bytes."""

    name: str
    macs: int
    contenders: dict[str, Callable[[], Any]]
    apart: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def operands(config: AcceleratorConfig, size: int, pattern: str | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw activations and weights, both (size, size), over the whole range of their formats."""
    rng = np.random.default_rng(size)
    kind = np.int8 if config.act_bits == 8 else np.int16
    x, w = (rng.integers(f.lo, f.hi, (size, size), kind, endpoint=True) for f in (config.act, config.weight))
    return x, prune(w, Pattern.parse(pattern)) if pattern else w


def shift_for(config: AcceleratorConfig, size: int) -> int:
    """Choose a shift after which sums fill the range of an activation."""
    return (size.bit_length() - 1) // 2 + config.weight_bits - 2


def post_for(config: AcceleratorConfig, size: int) -> Requantisation:
    """Scale by a power of two, ties to even, and saturate: what NumPy can do fastest. Our kernels do the general case all the same."""
    one = np.ones(size, np.int64)
    return Requantisation(bias=0 * one, mult=one, shift=shift_for(config, size) * one, lo=config.act.lo, hi=config.act.hi)


def blas(config: AcceleratorConfig, kind: type, x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
    """Multiply with NumPy's BLAS in floats, exact while sums stay below their mantissa; casts and requantisation included, in place."""
    sums: NDArray[Any] = x.astype(kind) @ w.astype(kind, copy=False).T
    np.multiply(sums, kind(2.0 ** -shift_for(config, len(x))), out=sums)
    np.rint(sums, out=sums)
    np.clip(sums, kind(config.act.lo), kind(config.act.hi), out=sums)
    return sums.astype(x.dtype)


def matmul_integer(x: NDArray[Any], w: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    """Make onnxruntime's MatMulInteger with constant weights; activations unsigned, for which it is fastest. No requantisation."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    size = len(x)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [size, size])],
        [numpy_helper.from_array(np.ascontiguousarray(w.T), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = numba.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"x": (x.astype(np.int16) + 128).astype(np.uint8)}
    return lambda: session.run(None, given)[0]


def apytypes_product(config: AcceleratorConfig, x: NDArray[Any], w: NDArray[Any], sequential: bool) -> Callable[[], NDArray[Any]]:
    """Make the product of apytypes from arrays of its own, requantised, or accumulated in `acc_bits` after every product."""
    from apytypes import APyFixedAccumulatorContext, APyFixedArray, OverflowMode, QuantizationMode

    a, b = (APyFixedArray.from_array(array.astype(np.int64), int_bits=8, frac_bits=0) for array in (x, np.ascontiguousarray(w.T)))

    def requantised() -> Any:
        shifted = (a @ b) >> shift_for(config, len(x))
        return shifted.cast(config.act_bits, 0, QuantizationMode.TIES_EVEN, OverflowMode.SAT)

    def accumulated() -> Any:
        with APyFixedAccumulatorContext(config.acc_bits, 0, QuantizationMode.TO_NEG, OverflowMode.SAT):
            return a @ b

    return accumulated if sequential else requantised


def optional(contenders: dict[str, Callable[[], Any]], name: str, package: str, make: Callable[[], Callable[[], Any]]) -> tuple[str, ...]:
    """Add a contender if its package is installed; return a sentence if not."""
    try:
        contenders[name] = make()
    except ImportError:
        return (f"{name}: left out, {package} is not installed.",)
    return ()


def int8(size: int) -> Bench:
    """Compare the dense int8 product, requantised to int8."""
    x, w = operands(INT8, size)
    post, weights, floats = post_for(INT8, size), Weights(w), w.astype(np.float32)
    halves = x.astype(np.float32), floats.T
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: gemm(INT8, x, weights, post).value,
        "ours, weights laid out each time": lambda: gemm(INT8, x, Weights(w), post).value,
        "ours, portable": lambda: gemm(INT8, x, weights, post, route="dense halves").value,
        "numpy float32 BLAS": partial(blas, INT8, np.float32, x, floats),
        "numpy float32 BLAS, weights cast each time": partial(blas, INT8, np.float32, x, w),
        "bare float32 BLAS": lambda: halves[0] @ halves[1],
    }
    missing = optional(contenders, "onnxruntime MatMulInteger", "onnxruntime", lambda: matmul_integer(x, w))
    missing += optional(contenders, "apytypes", "apytypes", lambda: apytypes_product(INT8, x, w, sequential=False))
    return Bench("int8 into int32, requantised", size**3, contenders, ("bare float32 BLAS", "onnxruntime MatMulInteger"), missing)


def int16(size: int) -> Bench:
    """Compare the dense int16 product into 48-bit accumulators, requantised to int16."""
    x, w = operands(INT16, size)
    post, weights, floats = post_for(INT16, size), Weights(w), w.astype(np.float64)
    doubles = x.astype(np.float64), floats.T
    return Bench(
        "int16 into 48 bits, requantised",
        size**3,
        {
            "ours": lambda: gemm(INT16, x, weights, post).value,
            "ours, weights laid out each time": lambda: gemm(INT16, x, Weights(w), post).value,
            "numpy float64 BLAS": partial(blas, INT16, np.float64, x, floats),
            "numpy float64 BLAS, weights cast each time": partial(blas, INT16, np.float64, x, w),
            "bare float64 BLAS": lambda: doubles[0] @ doubles[1],
        },
        ("bare float64 BLAS",),
    )


def sparse(config: AcceleratorConfig, pattern: str, size: int) -> Bench:
    """Compare routes on weights of a pattern: the chosen one against the dense ones of the same layer."""
    x, w = operands(config, size, pattern)
    post, weights = post_for(config, size), Weights(w)
    offered = routes(config, x, weights)
    dense = next(name for name in offered if name.startswith("dense"))
    names = {"ours": None, "ours, the route taken for dense": dense, "ours, portable dense": "dense halves"}
    contenders: dict[str, Callable[[], Any]] = {
        name: partial(_value, config, x, weights, post, route) for name, route in names.items() if route in {None, *offered}
    }
    return Bench(f"{pattern} sparse {config.name}, requantised", size**3 * w.astype(bool).sum() // w.size, contenders)


def narrow(size: int) -> Bench:
    """Compare accumulation that saturates after every addition."""
    x, w = operands(NARROW, size)
    weights = Weights(w)
    contenders: dict[str, Callable[[], Any]] = {"ours": lambda: gemm(NARROW, x, weights, route=SEQUENTIAL).value}
    peer = "apytypes, accumulator context (which does not keep its sums in 14 bits)"
    missing = optional(contenders, peer, "apytypes", lambda: apytypes_product(NARROW, x, w, sequential=True))
    return Bench("int8 into 14 bits, saturating at every step", size**3, contenders, (peer,), missing)


def _value(config: AcceleratorConfig, x: NDArray[Any], weights: Weights, post: Requantisation, route: str | None) -> NDArray[Any]:
    return gemm(config, x, weights, post, route=route).value


def plain(result: Any) -> NDArray[Any]:
    """Return a result as an array of numbers."""
    array: NDArray[Any] = np.asarray(result.to_numpy() if hasattr(result, "to_numpy") else result)
    return array


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Time the contenders of a comparison in turns; return seconds, rates and ratios."""
    ours = next(iter(bench.contenders))
    expected = plain(bench.contenders[ours]())
    for name, run in bench.contenders.items():
        result = plain(run())
        if name not in bench.apart:
            np.testing.assert_array_equal(result, expected, err_msg=f"{bench.name}: {name}")
    seconds: dict[str, list[float]] = {name: [] for name in bench.contenders}
    slow = {name for name, run in bench.contenders.items() if _time(run) > 1}
    for turn in range(rounds):
        for name, run in bench.contenders.items():
            if name not in slow or turn < 2:
                time.sleep(REST)
                seconds[name].append(_time(run, wake=name not in slow))
    return {
        "name": bench.name,
        "macs": int(bench.macs),
        "missing": list(bench.missing),
        "contenders": [
            {
                "name": name,
                "best_ms": round(1e3 * min(times), 3),
                "median_ms": round(1e3 * statistics.median(times), 3),
                "gmac_per_second": round(bench.macs / min(times) / 1e9, 2),
                "times_ours": round(statistics.median(peer / own for peer, own in zip(times, seconds[ours], strict=False)), 2),
                "times_ours_best": round(min(times) / min(seconds[ours]), 2),
                "same_bytes": name not in bench.apart,
            }
            for name, times in seconds.items()
        ],
    }


def _time(run: Callable[[], Any], wake: bool = False) -> float:
    if wake:
        run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """Describe what was measured on."""
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "llvmlite", "onnxruntime", "apytypes") if _installed(name)}
    return {
        "processor": llvmlite.binding.get_host_cpu_name(),
        "threads": numba.get_num_threads(),
        "vnni": simd.VNNI,
        "python": platform.python_version(),
        "versions": versions,
    }


def _installed(name: str) -> bool:
    return any(True for _ in metadata.distributions(name=name))


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Lay out a comparison as a table in Markdown."""
    yield f"### {result['name']}"
    yield ""
    yield "| | best [ms] | median [ms] | GMAC/s at best | times ours, median | times ours, best |"
    yield "|---|---|---|---|---|---|"
    for row in result["contenders"]:
        name = row["name"] if row["same_bytes"] else f"{row['name']} (other output)"
        times = f"{row['best_ms']:.2f} | {row['median_ms']:.2f} | {row['gmac_per_second']:.1f}"
        yield f"| {name} | {times} | {row['times_ours']:.2f} | {row['times_ours_best']:.2f} |"
    yield from ("", *result["missing"], "") if result["missing"] else ("",)


def main() -> None:
    """Print the tables and write `kernels.json` and `kernels.md`."""
    parser = argparse.ArgumentParser(prog="python -m reports.bench.kernels", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="turns of each contender")
    parser.add_argument("--size", type=int, default=1024, help="m, k and n; at most 1024, where float32 is still exact")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where kernels.json and kernels.md go")
    args = parser.parse_args()
    size = args.size
    benches = (
        int8(size),
        int16(size),
        sparse(INT8, "2:8", size),
        sparse(INT8, "1:8", size),
        sparse(INT16, "2:8", size),
        narrow(min(size, 512)),
    )
    results = []
    for bench in benches:
        results.append(measure(bench, args.rounds))
        print("\n".join(lines(results[-1])), flush=True)
    report = {"schema": 1, "machine": machine(), "size": size, "rounds": args.rounds, "results": results}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "kernels.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "kernels.md").write_text("\n".join(line for result in results for line in lines(result)))


if __name__ == "__main__":
    main()
