"""Golden model of the weight-update engine. RTL twin: :class:`accel.rtl.wuve.Wuve`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import FixedFormat, Rounding
from accel.golden import checks
from accel.golden.arithmetic import _overflow, _round_shift
from accel.golden.lfsr import _leap
from accel.jit import kernel
from accel.lfsr import WORD_MASK

ROUNDINGS = (Rounding.HALF_EVEN.value, Rounding.STOCHASTIC.value)
MASTER = FixedFormat(isa.MASTER_BITS)
_LO, _HI = MASTER.lo, MASTER.hi
_HALF_EVEN, _STOCHASTIC = Rounding.HALF_EVEN.code, Rounding.STOCHASTIC.code


class Updated(NamedTuple):
    """Results of a job.

    Parameters
    ----------
    velocity, master : int64, shape (beats, lanes)
        Of MASTER_BITS.
    working : int64, shape (beats, lanes)
        Of `weight_bits`.
    velocity_saturated, master_saturated, working_saturated : bool, shape (beats, lanes)
        Whether the exact number was outside.
    """

    velocity: NDArray[np.int64]
    master: NDArray[np.int64]
    working: NDArray[np.int64]
    velocity_saturated: NDArray[np.bool_]
    master_saturated: NDArray[np.bool_]
    working_saturated: NDArray[np.bool_]


class Tensor(NamedTuple):
    """Results of many elements.

    Parameters
    ----------
    velocity, master : int64
        Of MASTER_BITS.
    working : int64
        Of `weight_bits`.
    saturated : tuple of int
        Elements whose velocity, master and working copy saturated.
    state : int64, shape (L,), or None
        Words the lanes draw next.
    """

    velocity: NDArray[np.int64]
    master: NDArray[np.int64]
    working: NDArray[np.int64]
    saturated: tuple[int, int, int]
    state: NDArray[np.int64] | None


def wuve(
    config: AcceleratorConfig,
    state: NDArray[np.int64] | None,
    job: isa.Update,
    gradient: NDArray[np.int64],
    velocity: NDArray[np.int64],
    master: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> tuple[NDArray[np.int64] | None, Updated]:
    """Update the elements of a job.

    With every product rounded once, half to even, and the sum exact::

        d = round(c * w * 2^-decay_shift)                 c = decay where the weight is kept, else pruned_decay
        v = saturate(round(momentum * v * 2^-16) + g * 2^gradient_shift + d)
        w = saturate(w - round(rate * v * 2^-rate_shift))
        working = saturate(round(w * 2^-working_shift))   half to even, or floor(x + word / 2^32)

    In a stochastic job a lane with elements draws a word in every beat, whatever the element is; no other lane does, and half to even draws
    none. Lanes without elements compute with what they are given all the same.

    Parameters
    ----------
    config : AcceleratorConfig
        `cols` is the number of lanes; `act_bits` and `weight_bits`.
    state : int64, shape (cols,), or None
        Word each lane draws next, in [1, 2**32): where the tensor's jobs before left it. May be None where no words are drawn.
    job : isa.Update
    gradient : int64, shape (beats, lanes)
        Of `act_bits`; lanes from the job's own to `cols`.
    velocity, master : int64, shape (beats, lanes)
        Of MASTER_BITS.
    kept : bool, shape (beats, lanes)
        Whether FF keeps the weight.

    Returns
    -------
    state : int64, shape (cols,), or None
        Behind the job.
    updated : Updated

    Raises
    ------
    RangeError
        If a field of the job or an array breaks its rule. Inside, no intermediate reaches 2**63.
    """
    _check_fields(job)
    checks.integer("beats", job.beats, 1, (1 << isa.ROW_BITS) - 1)
    checks.integer("lanes", job.lanes, 1, config.cols)
    checks.integers("gradient", gradient, (job.beats, "lanes"), config.act.lo, config.act.hi)
    if not job.lanes <= gradient.shape[1] <= config.cols:
        raise RangeError(f"gradient must have {job.lanes} to {config.cols} lanes, not {gradient.shape[1]}")
    checks.integers("velocity", velocity, gradient.shape, MASTER.lo, MASTER.hi)
    checks.integers("master", master, gradient.shape, MASTER.lo, MASTER.hi)
    checks.flags("kept", kept, gradient.shape)
    words = _words(config, job, state)
    v, w, working = (np.empty_like(master) for _ in range(3))
    v_flag, w_flag, flag = (np.empty_like(kept) for _ in range(3))
    out = Updated(v, w, working, v_flag, w_flag, flag)
    _wuve(gradient, velocity, master, kept, words, job.lanes, *_operands(config, job), *out)
    return (None if state is None else words), out


def update(
    config: AcceleratorConfig,
    job: isa.Update,
    gradient: NDArray[np.signedinteger[Any]],
    velocity: NDArray[np.int64],
    master: NDArray[np.int64],
    kept: NDArray[np.bool_] | None = None,
    state: NDArray[np.int64] | None = None,
) -> Tensor:
    """Update many elements at once, as :func:`wuve` does one job of them.

    Parameters
    ----------
    config : AcceleratorConfig
        `cols` is the number of lanes; `act_bits` and `weight_bits`.
    job : isa.Update
        Its `beats` and `lanes` are not looked at: all elements are updated.
    gradient : signed integers, any shape; where words are drawn (beats, lanes), one strip
        Of `act_bits`.
    velocity, master : int64, shape of `gradient`
        Of MASTER_BITS.
    kept : bool, shape of `gradient`, or None
        Whether FF keeps the weight; None: all.
    state : int64, shape (cols,), or None
        Word each lane draws next, in [1, 2**32). May be None where no words are drawn.

    Returns
    -------
    Tensor
        New arrays of the shape of `gradient`.

    Raises
    ------
    RangeError
        If a field of the job or an array breaks its rule. Inside, no intermediate reaches 2**63.
    """
    _check_fields(job)
    if not np.issubdtype(gradient.dtype, np.signedinteger):
        raise RangeError(f"gradient must be of signed integers, not {gradient.dtype}")
    drawn = job.rounding == Rounding.STOCHASTIC.value
    if drawn and (gradient.ndim != 2 or gradient.shape[1] > config.cols):
        raise RangeError(f"gradient must be of shape (beats, at most {config.cols} lanes) where words are drawn, not {gradient.shape}")
    if gradient.size and not config.act.lo <= gradient.min() <= gradient.max() <= config.act.hi:
        raise RangeError(f"gradient must be in [{config.act.lo}, {config.act.hi}], not {gradient.min()}..{gradient.max()}")
    checks.integers("velocity", velocity, gradient.shape, MASTER.lo, MASTER.hi)
    checks.integers("master", master, gradient.shape, MASTER.lo, MASTER.hi)
    if kept is not None:
        checks.flags("kept", kept, gradient.shape)
    words = _words(config, job, state)
    flat = gradient.shape if drawn else (-1,)
    g, v, w = (np.ascontiguousarray(array).reshape(flat) for array in (gradient, velocity, master))
    mask = np.empty((0,) * len(flat), np.bool_) if kept is None else np.ascontiguousarray(kept).reshape(flat)
    new = [np.empty(w.shape, np.int64) for _ in range(3)]
    saturated = (
        _update_drawn(g, v, w, mask, words, *_operands(config, job), *new)
        if drawn
        else _update(g, v, w, mask, *_operands(config, job), *new)
    )
    velocity, master, working = (array.reshape(gradient.shape) for array in new)
    return Tensor(velocity, master, working, saturated, None if state is None else words)


def _check_fields(job: isa.Update) -> None:
    for name in ("momentum", "decay", "pruned_decay", "rate"):
        checks.integer(name, getattr(job, name), 0, (1 << isa.COEFFICIENT_BITS) - 1)
    checks.integer("gradient_shift", job.gradient_shift, 0, isa.GRADIENT_SHIFT)
    for name in ("decay_shift", "rate_shift", "working_shift"):
        checks.integer(name, getattr(job, name), 0, (1 << isa.SHIFT_BITS) - 1)
    if job.rounding not in ROUNDINGS:
        raise RangeError(f"rounding must be one of {', '.join(ROUNDINGS)}, not {job.rounding!r}")


def _words(config: AcceleratorConfig, job: isa.Update, state: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Check and copy the lanes' words; of a job that draws none they may be missing."""
    if state is None:
        if job.rounding == Rounding.STOCHASTIC.value:
            raise RangeError("state must be given where rounding is stochastic, not None")
        return np.zeros(config.cols, np.int64)
    checks.integers("state", state, (config.cols,), 1, WORD_MASK)
    return state.copy()


def _operands(config: AcceleratorConfig, job: isa.Update) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Operands of both sums, and of the working copy, as the kernels take them."""
    factors = job.momentum, job.gradient_shift, job.decay, job.pruned_decay, job.decay_shift, job.rate, job.rate_shift
    return factors, (job.working_shift, Rounding(job.rounding).code, config.weight.lo, config.weight.hi)


@kernel
def _element(g, v, w, kept, factors):
    """Kernel: velocity and master of one element, and whether each saturated. Without a branch, so that loops are vectorised.

    No sum exceeds 2**62 + 2**48 in magnitude: a gradient of 32 bits moved up by 31, and a decay of 48 bits.
    """
    momentum, gradient_shift, decay, pruned_decay, decay_shift, rate, rate_shift = factors
    c = pruned_decay + kept * (decay - pruned_decay)
    total = _round_shift(momentum * v, isa.MOMENTUM_SHIFT, _HALF_EVEN, 0) + (g << gradient_shift)
    v, v_flag = _overflow(total + _round_shift(c * w, decay_shift, _HALF_EVEN, 0), _LO, _HI, False)
    w, w_flag = _overflow(w - _round_shift(rate * v, rate_shift, _HALF_EVEN, 0), _LO, _HI, False)
    return v, w, v_flag, w_flag


@kernel
def _wuve(gradient, velocity, master, kept, words, lanes, factors, copy, v, w, working, v_flag, w_flag, flag):
    """Kernel: int64 throughout, no checks, so that JIT on and off agree; steps `words` and fills what stands behind `copy`."""
    shift, rounding, lo, hi = copy
    for beat in range(gradient.shape[0]):
        for lane in range(gradient.shape[1]):
            at = beat, lane
            v[at], w[at], v_flag[at], w_flag[at] = _element(gradient[at], velocity[at], master[at], kept[at], factors)
            working[at], flag[at] = _overflow(_round_shift(w[at], shift, rounding, words[lane]), lo, hi, False)
            if rounding == _STOCHASTIC and lane < lanes:
                words[lane] = _leap(words[lane])


@kernel
def _update(gradient, velocity, master, kept, factors, copy, v, w, working):
    """Kernel: elements in a line, half to even; counts the flags. An empty `kept` keeps all."""
    shift, _, lo, hi = copy
    v_flags = w_flags = flags = 0
    for i in range(gradient.size):
        mine = kept[i] if kept.size else True
        v[i], w[i], v_flag, w_flag = _element(np.int64(gradient[i]), velocity[i], master[i], mine, factors)
        working[i], flag = _overflow(_round_shift(w[i], shift, _HALF_EVEN, 0), lo, hi, False)
        v_flags += v_flag
        w_flags += w_flag
        flags += flag
    return v_flags, w_flags, flags


@kernel
def _update_drawn(gradient, velocity, master, kept, words, factors, copy, v, w, working):
    """Kernel: beats of elements, stochastic; steps `words`, counts the flags. An empty `kept` keeps all."""
    shift, _, lo, hi = copy
    v_flags = w_flags = flags = 0
    for beat in range(gradient.shape[0]):
        for lane in range(gradient.shape[1]):
            at = beat, lane
            mine = kept[at] if kept.size else True
            v[at], w[at], v_flag, w_flag = _element(np.int64(gradient[at]), velocity[at], master[at], mine, factors)
            working[at], flag = _overflow(_round_shift(w[at], shift, _STOCHASTIC, words[lane]), lo, hi, False)
            words[lane] = _leap(words[lane])
            v_flags += v_flag
            w_flags += w_flag
            flags += flag
    return v_flags, w_flags, flags
