"""Inner loops in LLVM's own vectors: dot products that numba does not find by itself.

A tile is ROWS rows of x times WIDTH columns of weights. Its sums stay in registers while the reduction runs, step by step: a step is one
word of 32 bits, four octets or two halves, of each row and each column.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from accel.jit import settings

ROWS, WIDTH = 8, 32  # half of the 32 registers of AVX-512 hold sums, the others operands
LANES = 16  # words of a 512-bit register; narrower machines take several registers for one
LINE = 4 * LANES  # octets of one
WINDOW = 16  # octets that one instruction picks from

JIT: bool = not settings.DISABLE_JIT
"""Whether there is a compiler: no loop of this module works without."""


def _has(*features: str) -> bool:
    """Tell if kernels may use instructions: this machine has them, and numba compiles for this very machine."""
    here = llvmlite.binding.get_host_cpu_features()
    return JIT and not (settings.CPU_NAME or settings.CPU_FEATURES) and all(here.get(feature, False) for feature in features)


VNNI = _has("avx512vnni", "avx512bw")
"""Whether one instruction adds four products of octets in each lane, and one picks octets from a window."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_WORDS, _OCTETS = ir.VectorType(_I32, LANES), ir.VectorType(_I8, LINE)
_WINDOW = ir.VectorType(_I8, WINDOW)
_ZEROS, _UNDEFINED = ir.Constant(_WORDS, [0] * LANES), ir.Constant(_WORDS, ir.Undefined)
_VECTORS = range(WIDTH // LANES)

Step = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value], ir.Value]


def _call(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    types = [argument.type for argument in arguments]
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(types[0], types), name), arguments)


def _unsigned_signed(builder: ir.IRBuilder, sums: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """Add four products of octets in each lane, x unsigned and w signed."""
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", sums, builder.bitcast(x, _OCTETS), builder.bitcast(w, _OCTETS))


def _signed_unsigned(builder: ir.IRBuilder, sums: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """Add four products of octets in each lane, x signed and w unsigned."""
    return _unsigned_signed(builder, sums, w, x)


def _halves(builder: ir.IRBuilder, sums: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """Add two products of signed halves in each lane, in the form of which LLVM makes one instruction on many machines."""
    wide = ir.VectorType(_I32, 2 * LANES)
    products = builder.mul(*(builder.sext(builder.bitcast(value, ir.VectorType(_I16, 2 * LANES)), wide) for value in (x, w)))
    picks = (builder.shuffle_vector(products, products, ir.Constant(_WORDS, list(range(odd, 2 * LANES, 2)))) for odd in (0, 1))
    return builder.add(sums, builder.add(*picks))


def _load(builder: ir.IRBuilder, array: ir.Value, index: ir.Value, align: int) -> ir.Value:
    load = builder.load(builder.gep(array, [index], inbounds=True))
    load.align = align
    return load


def _lines(builder: ir.IRBuilder, x: ir.Value, stride: ir.Value, rows: ir.Value, kind: ir.Type) -> list[ir.Value]:
    """Pointers to the rows of x; the last one stands in for those that the tile lacks."""
    last = builder.sub(rows, _I64(1))
    real = (builder.select(builder.icmp_signed("<", _I64(r), last), _I64(r), last) for r in range(ROWS))
    return [builder.inttoptr(builder.add(x, builder.mul(stride, row)), kind.as_pointer()) for row in real]


Body = Callable[[ir.IRBuilder, ir.Value, list[list[ir.Value]]], list[list[ir.Value]]]


def _reduce(builder: ir.IRBuilder, steps: ir.Value, tile: ir.Value, pitch: ir.Value, body: Body) -> None:
    """Run `body`, from the step's number and the sums before it to the sums after it, from zero; store the sums."""
    before, loop, after = builder.block, builder.append_basic_block("step"), builder.append_basic_block("tile")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_I64)
    sums = [[builder.phi(_WORDS) for _ in _VECTORS] for _ in range(ROWS)]
    results = body(builder, step, sums)
    following = builder.add(step, _I64(1))
    step.add_incoming(_I64(0), before)
    step.add_incoming(following, loop)
    for row, result in zip(sums, results, strict=True):
        for total, value in zip(row, result, strict=True):
            total.add_incoming(_ZEROS, before)
            total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    for r, row in enumerate(results):
        target = builder.inttoptr(builder.add(tile, builder.mul(pitch, _I64(r))), _WORDS.as_pointer())
        for v, value in enumerate(row):
            builder.store(value, builder.gep(target, [_I64(v)], inbounds=True)).align = 4


def _dense(multiply: Step) -> Callable[..., None]:
    """Make ``dot(x, stride, rows, panel, steps, tile, pitch)``: arrays by their addresses, everything an int64.

    ``tile[r, c] = sum over i < steps of x[min(r, rows - 1), i] . panel[i, c]``, words whose parts `multiply` combines, modulo 2**32. Rows
    of x are `stride` octets apart, rows of the tile `pitch` octets; the panel is aligned to LINE octets; `steps` is 1 or more.
    """

    @intrinsic
    def dot(typing, x, stride, rows, panel, steps, tile, pitch):
        def generate(context, builder, signature, arguments):
            x, stride, rows, panel, steps, tile, pitch = arguments
            lines = _lines(builder, x, stride, rows, _I32)
            weights = builder.inttoptr(panel, _WORDS.as_pointer())

            def body(builder, step, sums):
                at = builder.mul(step, _I64(len(_VECTORS)))
                columns = [_load(builder, weights, builder.add(at, _I64(v)), LINE) for v in _VECTORS]
                results = []
                for line, row in zip(lines, sums, strict=True):
                    word = builder.insert_element(_UNDEFINED, _load(builder, line, step, 1), _I32(0))
                    spread = builder.shuffle_vector(word, _UNDEFINED, _ZEROS)
                    results.append([multiply(builder, total, spread, column) for total, column in zip(row, columns, strict=True)])
                return results

            _reduce(builder, steps, tile, pitch, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return dot


def _sparse(multiply: Step) -> Callable[..., None]:
    """Make ``dot(x, stride, rows, panel, windows, steps, tile, pitch)``: arrays by their addresses, everything an int64.

    Step i looks at one window of WINDOW octets in each row of x, ``windows[i]`` octets (int64) from its start. For each column the panel
    holds a word of four places in the window, and after WIDTH of these a word of four weights: a lane multiplies what is at the places by
    the weights. All else is as in :func:`_dense`.
    """

    @intrinsic
    def dot(typing, x, stride, rows, panel, windows, steps, tile, pitch):
        def generate(context, builder, signature, arguments):
            x, stride, rows, panel, windows, steps, tile, pitch = arguments
            lines = _lines(builder, x, stride, rows, _I8)
            codes, starts = builder.inttoptr(panel, _WORDS.as_pointer()), builder.inttoptr(windows, _I64.as_pointer())

            def body(builder, step, sums):
                at, start = builder.mul(step, _I64(2 * len(_VECTORS))), _load(builder, starts, step, 8)
                places = [builder.bitcast(_load(builder, codes, builder.add(at, _I64(v)), LINE), _OCTETS) for v in _VECTORS]
                weights = [_load(builder, codes, builder.add(at, _I64(len(_VECTORS) + v)), LINE) for v in _VECTORS]
                results = []
                for line, row in zip(lines, sums, strict=True):
                    window = _load(builder, builder.bitcast(builder.gep(line, [start]), _WINDOW.as_pointer()), _I64(0), 1)
                    spread = builder.shuffle_vector(
                        window, window, ir.Constant(ir.VectorType(_I32, LINE), [i % WINDOW for i in range(LINE)])
                    )
                    picked = [_call(builder, "llvm.x86.avx512.pshuf.b.512", spread, place) for place in places]
                    results.append([multiply(builder, *each) for each in zip(row, picked, weights, strict=True)])
                return results

            _reduce(builder, steps, tile, pitch, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return dot


dense_halves = _dense(_halves)
dense_unsigned_signed, dense_signed_unsigned = _dense(_unsigned_signed), _dense(_signed_unsigned)
sparse_unsigned_signed, sparse_signed_unsigned = _sparse(_unsigned_signed), _sparse(_signed_unsigned)
