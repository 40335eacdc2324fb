"""Operands of a weight update: real learning rate, momentum and decays as the integers of `accel.isa.Update`."""

from __future__ import annotations

from accel import isa
from accel.errors import RangeError
from accel.golden.arithmetic import MAX_SHIFT
from accel.quant import nearest_multiplier


def operands(
    *,
    rate: float,
    momentum: float,
    decay: float,
    pruned_decay: float,
    batch: int,
    f_gradient: int,
    f_velocity: int,
    f_master: int,
    f_working: int,
    rounding: str = "half_even",
) -> isa.Update:
    """Turn the numbers of an optimiser into those of a job, of one beat of one lane: ``dataclasses.replace`` gives it others.

    The gradient G is that of the sum of a batch's losses, so the velocity V is kept `batch` times as large as with the gradient of their
    mean, and the weight W is the same::

        V = momentum * V + G + batch * (decay + pruned_decay where W is pruned) * W
        W = W - rate / batch * V

    In integers, W = w * 2^-f_master and so on, the factors are ``batch * decay * 2^(f_velocity - f_master)`` and ``rate / batch *
    2^(f_master - f_velocity)``. The momentum is the nearest multiple of 2^-16: an error of 2^-17 at most. The rate and the larger decay are
    the nearest coefficient with a shift: an error of 2^-16 of itself at most, or of 2^-64 in the factor if that is more. Both decays have
    one shift, so the smaller one's error is at most 2^-16 of the larger.

    Parameters
    ----------
    rate : float
        Learning rate, 0 or more.
    momentum : float
        0 to 1 - 2**-16.
    decay, pruned_decay : float
        Weight decay, and what pruned weights have besides; 0 or more.
    batch : int
        Samples whose losses are summed, 1 or more.
    f_gradient, f_velocity, f_master, f_working : int
        Fraction bits.
    rounding : Rounding value
        Of the working copy.

    Returns
    -------
    isa.Update

    Raises
    ------
    RangeError
        If an argument breaks its rule, or a factor does not fit.
    """
    for name, value in (("rate", rate), ("decay", decay), ("pruned_decay", pruned_decay)):
        if not 0 <= value < float("inf"):
            raise RangeError(f"{name} must be a number of at least 0, not {value!r}")
    most = 1 - 2.0**-isa.MOMENTUM_SHIFT
    if not 0 <= momentum <= most:
        raise RangeError(f"momentum must be a number in [0, {most}], not {momentum!r}")
    if type(batch) is not int or batch < 1:
        raise RangeError(f"batch must be an int of at least 1, not {batch!r}")
    if not 0 <= f_velocity - f_gradient <= isa.GRADIENT_SHIFT:
        raise RangeError(f"f_velocity must be in [{f_gradient}, {f_gradient + isa.GRADIENT_SHIFT}], not {f_velocity}")
    if not 0 <= f_master - f_working <= MAX_SHIFT:
        raise RangeError(f"f_master must be in [{f_working}, {f_working + MAX_SHIFT}], not {f_master}")
    pull = batch * 2.0 ** (f_velocity - f_master)
    step, rate_shift = _factor("rate", rate, 1 / pull)
    larger, decay_shift = _factor("decay + pruned_decay", decay + pruned_decay, pull)
    return isa.Update(
        beats=1,
        lanes=1,
        momentum=round(momentum * 2.0**isa.MOMENTUM_SHIFT),
        gradient_shift=f_velocity - f_gradient,
        decay=round(decay * pull * 2.0**decay_shift),
        pruned_decay=larger,
        decay_shift=decay_shift,
        rate=step,
        rate_shift=rate_shift,
        working_shift=f_master - f_working,
        rounding=rounding,
    )


def _factor(name: str, value: float, unit: float) -> tuple[int, int]:
    """Return the coefficient and the shift of ``value * unit``; what is nearer to 0 than to any is 0."""
    most = 2.0**isa.COEFFICIENT_BITS - 0.5
    if value * unit >= most:
        raise RangeError(f"{name} must be below {most / unit:g} in these formats, not {value!r}")
    if value * unit <= 2.0 ** -(MAX_SHIFT + 1):
        return 0, 0
    mult, shift = nearest_multiplier(value * unit, isa.COEFFICIENT_BITS)
    return int(mult), int(shift)
