from __future__ import annotations

import numpy as np
import pytest
from amaranth import signed, unsigned
from amaranth.lib import data

from accel.errors import RangeError
from accel.sim.pack import first_difference, leaves, pack, unpack

LAYOUTS = [
    unsigned(1),
    signed(62),
    data.ArrayLayout(signed(5), 3),
    data.ArrayLayout(data.ArrayLayout(unsigned(3), 2), 4),
    data.StructLayout({"a": data.ArrayLayout(signed(11), 3), "flag": 1, "b": data.StructLayout({"c": signed(2), "d": unsigned(40)})}),
    data.ArrayLayout(data.StructLayout({"x": signed(7), "y": 1}), 3),
]


def draw(layout, count=20):
    rng = np.random.default_rng(0)
    fields = {}
    for leaf in leaves(layout):
        lo = -(1 << leaf.bits.shape[-1] - 1) if leaf.signed else 0
        fields[leaf.name] = rng.integers(lo, lo + (1 << leaf.bits.shape[-1]), (count, *leaf.shape))
    return fields


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_unpack_inverts_pack(layout):
    fields = draw(layout)
    words = pack(layout, fields[""]) if "" in fields else pack(layout, **fields)
    for name, values in unpack(layout, words).items():
        np.testing.assert_array_equal(values, fields[name])


def test_pack_agrees_with_amaranth():
    """Amaranth's own reading of the integers is the outside truth."""
    layout = LAYOUTS[4]
    fields = draw(layout)
    for i, word in enumerate(pack(layout, **fields)):
        value = layout.from_bits(word)
        assert [value["a"][lane] for lane in range(3)] == fields["a"][i].tolist()
        assert (value["flag"], value["b"]["c"], value["b"]["d"]) == (fields["flag"][i], fields["b.c"][i], fields["b.d"][i])


def test_pack_of_nothing():
    assert pack(LAYOUTS[2], np.zeros((0, 3))) == []
    assert unpack(LAYOUTS[2], [])[""].shape == (0, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": [[1, 2]]}, r"^fields must be a, b, not a$"),
        ({"a": [[1, 2]], "b": [1], "c": [1]}, r"^fields must be a, b, not a, b, c$"),
        ({"a": [[1, 2, 3]], "b": [1]}, r"^a must be of shape \(1, 2\), not \(1, 3\)$"),
        ({"a": [[1, 2]], "b": [1, 0]}, r"^b must be of shape \(1,\), not \(2,\)$"),
        ({"a": [[1, 8]], "b": [1]}, r"^a must be in \[-8, 8\), not 1\.\.8$"),
        ({"a": [[1, 7]], "b": [-1]}, r"^b must be in \[0, 2\), not -1\.\.-1$"),
    ],
)
def test_pack_rejects(fields, message):
    with pytest.raises(RangeError, match=message):
        pack(data.StructLayout({"a": data.ArrayLayout(signed(4), 2), "b": 1}), **fields)


@pytest.mark.parametrize(
    ("expected", "got", "difference"),
    [
        ("1_0111_1000", "1_0111_1001", (".a[0]", "-8", "-7")),
        ("1_0111_1000", "0_1000_1000", (".a[1]", "7", "-8")),
        ("1_0111_1000", "0_0111_1000", (".b", "1", "0")),
        ("1_0111_1000", "1_01X1_1000", (".a[1]", "7", "01X1")),
    ],
)
def test_first_difference(expected, got, difference):
    layout = data.StructLayout({"a": data.ArrayLayout(signed(4), 2), "b": 1})
    assert first_difference(layout, expected.replace("_", ""), got.replace("_", "")) == difference


def test_first_difference_needs_one():
    with pytest.raises(ValueError, match=r"^payloads must differ$"):
        first_difference(unsigned(2), "01", "01")
