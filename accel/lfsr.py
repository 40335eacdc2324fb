"""Words of stochastic rounding: one linear-feedback shift register per lane, the same bits in model and hardware.

A lane is the sequence of bits ``b[n] = b[n-32] ^ b[n-31] ^ b[n-30] ^ b[n-10]``, whose characteristic polynomial
x^32 + x^22 + x^2 + x + 1 is primitive [1]_: the period is 2**32 - 1. Word t holds bits b[32*t] (least significant) to b[32*t + 31], so
consecutive words share no bit. As 32 and 2**32 - 1 are coprime, the words too have period 2**32 - 1: each but 0 occurs once in it.

A lane's state is the word it draws next; a draw leaps 32 bits. Element i of a tensor, in ascending address order, takes draw i div L of
lane i mod L; a lane steps once per element it takes and at no other time, so the words do not depend on tiles or waits.

References
----------
.. [1] P. Alfke, "Efficient Shift Registers, LFSR Counters, and Long Pseudo-Random Sequence Generators", Xilinx XAPP052 v1.1, 1996,
   table 3: taps 32, 22, 2, 1.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError

WORD_BITS = 32
WORD_MASK = (1 << WORD_BITS) - 1


def leap(word: int) -> int:
    """Return the word that follows `word` in a lane.

    ``old`` holds what the previous word adds to each new bit. New bits also feed the bits 10 above them, three times over, and bits 0 and 1
    feed bits 30 and 31.

    Parameters
    ----------
    word : int
        Current word, in [1, 2**32).

    Returns
    -------
    int
        Next word, in [1, 2**32).
    """
    old = word ^ (word >> 1) ^ (word >> 2) ^ (word >> 22)
    new = (old ^ (old << 10) ^ (old << 20) ^ (old << 30)) & WORD_MASK
    return (new ^ (new << 30) ^ (new << 31)) & WORD_MASK


def parities() -> tuple[tuple[int, ...], ...]:
    """Return for each bit of the next word the bits of the current word whose parity it is: `leap` as a matrix over GF(2)."""
    columns = [leap(1 << bit) for bit in range(WORD_BITS)]
    return tuple(tuple(bit for bit, column in enumerate(columns) if column >> row & 1) for row in range(WORD_BITS))


def seeds(seed: int, tensor: str, lanes: int) -> NDArray[np.int64]:
    """Derive the first state of every lane of a tensor.

    Lane j starts from bytes 4j to 4j + 3, least significant first, of SHAKE128 (FIPS 202) of the text ``<seed>/<tensor>`` in UTF-8; 0, in
    which a register would stay for ever, is replaced by 1. A lane's state does not depend on the number of lanes.

    Parameters
    ----------
    seed : int
        Seed of the run, 0 or more.
    tensor : str
        Name of the tensor that is rounded.
    lanes : int
        Lanes, 1 or more.

    Returns
    -------
    int64, shape (lanes,)
        States in [1, 2**32).

    Raises
    ------
    RangeError
        If `seed` is negative or `lanes` is not positive.
    """
    if seed < 0:
        raise RangeError(f"seed must be an int of at least 0, not {seed}")
    if lanes < 1:
        raise RangeError(f"lanes must be an int of at least 1, not {lanes}")
    digest = hashlib.shake_128(f"{seed}/{tensor}".encode()).digest(4 * lanes)
    return np.maximum(np.frombuffer(digest, "<u4").astype(np.int64), 1)
