"""Whatever a file holds, it gives a network or a plain error, soon. The long run of the same inputs is ``python -m reports.fuzz``."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reports.fuzz.inputs import SOURCES, make, models

LIMIT = 10.0  # [s] that any input may take
EXAMPLES = {"bytes": 150, "fields": 150, "graphs": 100}


@pytest.mark.parametrize("kind", SOURCES)
def test_no_input_ends_in_a_traceback(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("fuzz")

    @settings(max_examples=EXAMPLES.get(kind, 50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32 - 1))
    def check(number):
        start = time.perf_counter()
        assert make(number, folder, kind).run() in ("accepted", "refused")
        assert time.perf_counter() - start < LIMIT

    check()


@pytest.mark.parametrize("name", models())
def test_what_is_damaged_was_right(tmp_path, name):
    """Each model is a network before it is damaged, so that damage is what the errors are about."""
    made = make(0, tmp_path, "bytes")
    made.path.write_bytes(models()[name])
    assert made.run() == "accepted"


def test_an_input_depends_on_its_number_alone(tmp_path):
    for kind in SOURCES:
        contents = {make(5, tmp_path, kind).path.read_bytes() for _ in range(3)}
        assert len(contents) == 1
