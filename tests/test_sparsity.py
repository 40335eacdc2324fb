"""N:M sparsity against a naive twin: exhaustive where small, random where large."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from accel.errors import RangeError
from accel.sparsity import MAX_M, Codes, Pattern, bundles, decode, detect, encode, energy_removed, mask, prune, storage_bits

pytestmark = pytest.mark.golden

PATTERNS = [Pattern(n, m) for m in range(1, MAX_M + 1) for n in range(1, m + 1)]
patterns = st.sampled_from(PATTERNS)
weights = st.sampled_from([np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64])


def naive_groups(taps, channels, pattern):
    """Every group as a list of columns."""
    return [
        list(range(tap * channels + start, tap * channels + min(start + pattern.m, channels)))
        for tap in range(taps)
        for start in range(0, channels, pattern.m)
    ]


def naive_kept(line, group, pattern):
    """Columns of a group that stay, ascending."""
    return sorted(sorted(group, key=lambda k: (-abs(line[k]), k))[: pattern.n])


def naive_codes(w, taps, channels, pattern):
    positions = [[k for group in naive_groups(taps, channels, pattern) for k in naive_kept(line, group, pattern)] for line in w]
    return [[line[k] for k in row] for line, row in zip(w, positions, strict=True)], positions


@st.composite
def matrices(draw, dtype=weights, elements=None):
    taps, channels = draw(st.integers(1, 4)), draw(st.integers(1, 70))
    w = draw(hnp.arrays(draw(dtype), (draw(st.integers(0, 3)), taps * channels), elements=elements))
    return w, taps, channels


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern.m <= 5], ids=str)
def test_codes_exhaustively(pattern):
    """Every line of 1 to 5 three-valued weights, ties and short groups included."""
    for channels in range(1, 6):
        w = np.array(list(product([-128, 1, 127] if channels % 2 else [-2, 0, 2], repeat=channels)), np.int8)
        values, positions = encode(w, 1, channels, pattern)
        expected = naive_codes(w.tolist(), 1, channels, pattern)
        assert (values.tolist(), positions.tolist()) == expected


@given(matrices(), patterns)
def test_codes_of_every_type(case, pattern):
    w, taps, channels = case
    codes = encode(w, taps, channels, pattern)
    values, positions = naive_codes(w.tolist(), taps, channels, pattern)
    assert codes.values.dtype == w.dtype
    assert codes.positions.dtype == np.int64
    assert (codes.values.tolist(), codes.positions.tolist()) == (values, positions)
    assert codes.values.shape == (len(w), taps * pattern.pairs(channels))


@given(matrices(elements=st.integers(0, 2)), patterns)
def test_decode_undoes_encode(case, pattern):
    """What comes back is the pruned matrix, and encoding that loses nothing."""
    w, taps, channels = case
    back = decode(encode(w, taps, channels, pattern), w.shape[1])
    lines = prune(w.reshape(-1, channels), pattern)
    np.testing.assert_array_equal(back, lines.reshape(w.shape))
    np.testing.assert_array_equal(decode(encode(back, taps, channels, pattern), w.shape[1]), back)
    assert back.dtype == lines.dtype == w.dtype


@given(
    hnp.arrays(st.sampled_from([np.int8, np.float32, np.float64]), hnp.array_shapes(max_dims=4, min_side=0), elements=st.integers(-3, 3)),
    patterns,
    st.data(),
)
def test_mask_along_any_axis(w, pattern, data):
    axis = data.draw(st.integers(-w.ndim, w.ndim - 1))
    kept = mask(w, pattern, axis)
    assert kept.shape == w.shape
    lines, marks = (np.moveaxis(a, axis, -1) for a in (w, kept))
    for place in np.ndindex(lines.shape[:-1]):
        line, marked = lines[place].tolist(), marks[place].tolist()
        expected = {k for group in naive_groups(1, len(line), pattern) for k in naive_kept(line, group, pattern)}
        assert {k for k, on in enumerate(marked) if on} == expected
    np.testing.assert_array_equal(prune(w, pattern, axis), np.where(kept, w, 0))


def test_ties_and_extremes():
    """|-128| is 128, so it beats 127; equal magnitudes go to the lower index."""
    assert mask(np.array([127, -128, 5, -5], np.int8), Pattern(1, 2)).tolist() == [False, True, True, False]
    assert mask(np.array([-(2**63), 2**63 - 1]), Pattern(1, 2)).tolist() == [True, False]
    assert mask(np.array([2**32 - 1, 2**31], np.uint32), Pattern(1, 2)).tolist() == [True, False]


@given(st.integers(1, 4), st.integers(1, 80), st.integers(1, MAX_M), st.data())
def test_bundles(taps, channels, bundle, data):
    """Bundles hold whole groups of one tap, as many as the rule says, and every element once."""
    pattern = data.draw(st.sampled_from([pattern for pattern in PATTERNS if pattern.m <= bundle]))
    cut = bundles(taps, channels, pattern, bundle)
    groups = naive_groups(taps, channels, pattern)
    per_bundle = bundle // pattern.m if bundle % pattern.m == 0 else 1
    expected = []
    for tap in range(taps):
        own = [group for group in groups if group[0] // channels == tap]
        for first in range(0, len(own), per_bundle):
            held = own[first : first + per_bundle]
            size = sum(len(group) for group in held)
            expected.append((held[0][0], size, sum(min(pattern.n, len(group)) for group in held)))
            assert size <= bundle
    assert list(zip(cut.start.tolist(), cut.size.tolist(), cut.pairs.tolist(), strict=True)) == expected
    assert cut.start.dtype == cut.size.dtype == cut.pairs.dtype == np.int64
    assert cut.depth == taps * pattern.pairs(channels)


@given(matrices(), patterns)
def test_offsets_lie_in_their_bundle(case, pattern):
    w, taps, channels = case
    cut = bundles(taps, channels, pattern, MAX_M)
    positions = encode(w, taps, channels, pattern).positions
    offsets = cut.offsets(positions)
    owner = [bundle for bundle, pairs in enumerate(cut.pairs) for _ in range(pairs)]
    for row, columns in zip(offsets.tolist(), positions.tolist(), strict=True):
        for index, column, bundle in zip(row, columns, owner, strict=True):
            assert 0 <= index < cut.size[bundle]
            assert cut.start[bundle] + index == column


@given(matrices(elements=st.sampled_from([0, 0, 0, 1])), st.lists(patterns, max_size=6))
def test_detect(case, candidates):
    w, taps, channels = case
    lines = w.reshape(-1, channels).tolist()
    obeyed = [
        p for p in candidates if all(sum(line[k] != 0 for k in group) <= p.n for line in lines for group in naive_groups(1, channels, p))
    ]
    found = detect(w, taps, channels, iter(candidates))
    assert found == min(obeyed, key=lambda p: sum(min(p.n, len(group)) for group in naive_groups(taps, channels, p)), default=None)


@pytest.mark.parametrize(
    ("pattern", "values", "indices", "decodes"),
    [
        (Pattern(2, 8), 3 * 18 * 8, 3 * 18 * 3, 3 * 18),  # 20 channels: 2 + 2 + 2 pairs a tap
        (Pattern(2, 5), 3 * 24 * 8, 3 * 24 * 3, 3 * 24),
        (Pattern(1, 32), 3 * 3 * 8, 3 * 3 * 5, 3 * 3),
        (Pattern(8, 8), 3 * 60 * 8, 0, 0),
        (Pattern(1, 1), 3 * 60 * 8, 0, 0),
    ],
    ids=str,
)
def test_storage(pattern, values, indices, decodes):
    assert storage_bits(3, 3, 20, pattern, 8) == (values, indices, decodes)
    assert storage_bits(3, 3, 20, pattern, 8).bits == values + indices
    codes = encode(np.zeros((3, 60), np.int8), 3, 20, pattern)
    assert codes.values.size * 8 == values


def test_energy_removed():
    w = np.array([[3, -4, 0, 12]], np.int8)
    assert energy_removed(w, prune(w, Pattern(1, 2))) == 9 / 169
    assert energy_removed(w, w) == energy_removed(0 * w, w) == 0.0


def test_pattern_text():
    for pattern in PATTERNS:
        assert Pattern.parse(str(pattern)) == pattern
        assert pattern.dense == (pattern.n == pattern.m)
    assert str(Pattern(2, 8)) == "2:8"
    with pytest.raises(RangeError, match=r"^pattern must be N:M such as 2:8, not '2/8'$"):
        Pattern.parse("2/8")
    with pytest.raises(RangeError, match=r"^m must be an int in \[1, 32\], not 64$"):
        Pattern.parse("1:64")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((1, 33), r"m must be an int in \[1, 32\], not 33"),
        ((1, 0), r"m must be an int in \[1, 32\], not 0"),
        ((0, 4), r"n must be an int in \[1, 4\], not 0"),
        ((5, 4), r"n must be an int in \[1, 4\], not 5"),
        ((1.0, 4), r"n must be an int in \[1, 4\], not 1\.0"),
        ((1, True), r"m must be an int in \[1, 32\], not True"),
    ],
)
def test_pattern_rejects(fields, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        Pattern(*fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, Pattern(2, 4), 8), "taps must be a positive int, not 0"),
        ((1, 0, Pattern(2, 4), 8), "channels must be a positive int, not 0"),
        ((1, 8, Pattern(2, 4), 33), r"bundle must be an int in \[1, 32\], not 33"),
        ((1, 8, Pattern(2, 16), 8), "pattern must have M at most the bundle size 8, not 2:16"),
    ],
)
def test_bundles_rejects(arguments, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        bundles(*arguments)


@pytest.mark.parametrize(
    ("w", "axis", "message"),
    [
        (np.int8(1), 0, "w must be an array of one dimension or more, not a scalar"),
        (np.zeros(3, bool), 0, "w must be of an integer type that int64 holds, float32 or float64, not bool"),
        (np.zeros(3, np.uint64), 0, "w must be of an integer type that int64 holds, float32 or float64, not uint64"),
        (np.zeros(3, np.float16), 0, "w must be of an integer type that int64 holds, float32 or float64, not float16"),
        (np.array([np.nan]), 0, "w must be finite, not infinite or NaN"),
        (np.zeros((2, 3), np.int8), 2, r"axis must be in \[-2, 1\], not 2"),
    ],
)
def test_mask_rejects(w, axis, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        mask(np.asarray(w), Pattern(1, 2), axis)


@pytest.mark.parametrize("function", [lambda w: encode(w, 2, 4, Pattern(1, 2)), lambda w: detect(w, 2, 4, [Pattern(1, 2)])])
@pytest.mark.parametrize(
    ("w", "shown"),
    [(np.zeros((1, 9), np.int8), r"int8 of shape \(1, 9\)"), (np.zeros((1, 8)), r"float64 of shape \(1, 8\)")],
)
def test_matrix_rejects(function, w, shown):
    with pytest.raises(RangeError, match=rf"^w must be integers of shape \(n, 8\), not {shown}$"):
        function(w)


def test_decode_rejects():
    one = np.zeros((1, 1), np.int64)
    with pytest.raises(RangeError, match=r"^codes must be two matrices of one shape, not \(1, 1\) and \(1,\)$"):
        decode(Codes(one, one[0]), 4)
    with pytest.raises(RangeError, match=r"^positions must be in \[0, 3\], not 4\.\.4$"):
        decode(Codes(one, one + 4), 4)
