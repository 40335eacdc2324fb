"""Cycles of operators that are modelled in fixed point but have no hardware yet. The formula is our choice; there is no RTL to measure.

A vector unit of as many lanes as the array has columns takes one element per lane and cycle, once per pass. A lane has one multiplier
beside the post-processor's, so a pass holds one product at most.

- ``Lookup``, ``Multiply``, ``Divide``: 1 pass, rows one behind the other without a gap.
- ``ArgMax``: 1 pass, row by row, and a tree over the lanes.
- ``Softmax``: 3 passes, row by row: the maximum; powers and their sum; quotients.
- ``LayerNorm``: 3 passes, row by row: sum and sum of squares; deviation times reciprocal root; gamma and beta.

Rows follow one another through a pass, so what stands between two passes of a row is waited for once, at the last row: the pipeline, the
tree of a sum or maximum over the lanes, and the scalar square root and reciprocal, of 31 bits each, a bit per cycle.
"""

from __future__ import annotations

from accel.config import AcceleratorConfig
from accel.errors import RangeError

STAGES = 4  # of a lane's pipeline: operand, product or table, sum, result [cycles]
QUOTIENT = 20  # of a pipelined divider in a lane: a bit of the clipped quotient per stage, and the rounding [cycles]
ROOT = 62  # of the square root and the reciprocal of a row [cycles]

PASSES = {"Lookup": 1, "Multiply": 1, "Divide": 1, "ArgMax": 1, "Softmax": 3, "LayerNorm": 3}
_BY_ROW = {"ArgMax": 1, "Softmax": 2, "LayerNorm": 1}  # passes that end in a tree over the lanes
_BESIDE = {"Divide": QUOTIENT, "Softmax": QUOTIENT, "LayerNorm": ROOT}


def special(config: AcceleratorConfig, kind: str, elements: int, row: int = 1) -> int:
    """Count the cycles of an operator on a vector unit.

    With beats = rows * ceil(row / cols) for operators that work row by row, and ceil(elements / cols) for the others:
    ``passes * (beats + STAGES) + trees * ceil(log2(cols)) + beside``, where `beside` is QUOTIENT or ROOT for those that have one.

    Parameters
    ----------
    config : AcceleratorConfig
        Its `cols` are the lanes.
    kind : str
        Key of :data:`PASSES`.
    elements : int
        Of all rows, 1 or more; of the input, for ``ArgMax``.
    row : int
        Elements of a row; divides `elements`. Has no influence on operators without rows.

    Returns
    -------
    int
        From the first element taken to the last one emitted, both inclusive [cycles].

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    if kind not in PASSES:
        raise RangeError(f"kind must be one of {', '.join(PASSES)}, not {kind!r}")
    if elements < 1 or row < 1 or elements % row:
        raise RangeError(f"elements must be 1 or more rows of {row}, not {elements}")
    beats = elements // row * -(-row // config.cols) if kind in _BY_ROW else -(-elements // config.cols)
    trees = _BY_ROW.get(kind, 0) * (config.cols - 1).bit_length()
    return PASSES[kind] * (beats + STAGES) + trees + _BESIDE.get(kind, 0)
