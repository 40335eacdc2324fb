"""The kernel cache: never stale, never in others' way, quiet unless a person watches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

from accel import jit

HELPER = "from accel.jit import kernel\n\n@kernel\ndef helper(x):\n    return x * {factor}\n"
CALLER = "from accel.helper import helper\nfrom accel.jit import kernel\n\n@kernel\ndef call(x):\n    return helper(x) + 1\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a small package named accel with the real jit.py, a caller and its helper in another file."""
    (tmp_path / "accel").mkdir()
    shutil.copy(jit.__file__, tmp_path / "accel")
    (tmp_path / "accel/helper.py").write_text(HELPER.format(factor=2))
    (tmp_path / "accel/caller.py").write_text(CALLER)
    return tmp_path


CALL = "from accel.caller import call; print(call(10), sum(call.stats.cache_hits.values()))"


def run(package: Path, code: str, **env: str) -> tuple[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_", "ACCEL_"))}
    env = {"XDG_CACHE_HOME": str(package / "cache"), "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"} | env
    done = subprocess.run([sys.executable, "-c", code], env=clean | env, cwd=package, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_an_edited_helper_in_another_file_is_compiled_again(package):
    assert run(package, CALL)[0] == "21 0"
    assert run(package, CALL)[0] == "21 1"
    (package / "accel/helper.py").write_text(HELPER.format(factor=3))
    assert run(package, CALL)[0] == "31 0"
    (package / "accel/helper.py").write_text(HELPER.format(factor=2))
    assert run(package, CALL)[0] == "21 1"


def test_an_edit_of_what_is_imported_indirectly_counts(package):
    (package / "accel/helper.py").write_text("from accel.constants import FACTOR\n" + HELPER.format(factor="FACTOR"))
    (package / "accel/constants.py").write_text("FACTOR = 2\n")
    assert run(package, CALL)[0] == "21 0"
    (package / "accel/constants.py").write_text("FACTOR = 4\n")
    assert run(package, CALL)[0] == "41 0"


def test_an_edit_of_what_is_not_imported_does_not_count(package):
    assert run(package, CALL)[0] == "21 0"
    (package / "accel/other.py").write_text("")
    assert run(package, CALL)[0] == "21 1"


@pytest.mark.parametrize(
    "line",
    [
        "import accel.kernels.b",
        "from accel import kernels",
        "from accel.kernels import b",
        "from accel.kernels import a, b as c  # why",
        "from accel.kernels import (\n    a,\n    b,\n)",
        "from accel.kernels.b import thing",
    ],
)
def test_imports_are_followed(tmp_path, monkeypatch, line):
    monkeypatch.setattr(jit, "_ROOT", tmp_path)
    (tmp_path / "kernels").mkdir()
    for name in ("__init__", "a", "b"):
        (tmp_path / f"kernels/{name}.py").write_text("from accel.kernels import b\n" if name == "__init__" else "")
    source = tmp_path / "source.py"
    source.write_text(f"import numpy\n\n{line}\n")
    assert {source, tmp_path / "kernels/b.py"} <= jit._reach(source)


def test_the_callers_own_numba_directory_is_the_base(package):
    run(package, CALL, NUMBA_CACHE_DIR=str(package / "mine"))
    assert list((package / "mine/accel/numba").glob("*/*/caller.call*.nbi"))
    assert not (package / "cache").exists()


def test_other_users_of_numba_keep_their_directory(package):
    assert run(package, "import numba; from accel.caller import call; print(repr(numba.config.CACHE_DIR))")[0] == "''"


def test_a_directory_that_cannot_be_made_means_no_cache(package):
    (package / "cache").write_text("a file where a directory should be")
    code = CALL + "; import pathlib; from accel.jit import cache_dir; print(cache_dir(pathlib.Path('accel/caller.py')))"
    assert run(package, code)[0].split() == ["21", "0", "None"]


def test_one_line_of_progress_if_asked_for_and_only_when_compiling(package):
    assert run(package, CALL)[1] == ""
    (package / "accel/helper.py").write_text(HELPER.format(factor=3))
    lines = run(package, CALL, ACCEL_PROGRESS="1")[1].splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("accel: compiling kernels, once for this version (kept in ")
    assert run(package, CALL, ACCEL_PROGRESS="1")[1] == ""


def test_without_jit_the_function_itself_is_returned(package):
    assert run(package, "from accel.caller import call; print(type(call).__name__, call(10))", NUMBA_DISABLE_JIT="1")[0] == "function 21"


def test_old_directories_go_but_recent_and_newest_ones_stay(tmp_path, monkeypatch):
    base = tmp_path / "accel/numba"
    for age in range(20):  # six of them used in the last hour
        (base / f"jit-{age:02}").mkdir(parents=True)
        os.utime(base / f"jit-{age:02}", (then := time.time() - jit.REST * age / 6, then))
    (base / "other-00").mkdir()
    os.utime(base / "other-00", (0, 0))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    jit.cache_dir.cache_clear()
    try:
        made = jit.cache_dir(Path(jit.__file__))
    finally:
        jit.cache_dir.cache_clear()
    assert made is not None
    assert {path.name for path in base.iterdir()} == {made.name, "other-00"} | {f"jit-{age:02}" for age in range(max(jit.KEPT, 6))}


def test_options_reach_numba():
    @jit.kernel(error_model="numpy", cache=False)
    def divide(a, b):
        return a / b

    if hasattr(divide, "py_func"):  # compiled
        assert divide(1.0, 0.0) == float("inf")


def test_hashing_the_sources_is_fast():
    sources = list(Path(jit.__file__).parent.glob("[gk]*/*.py"))  # golden and kernels
    jit.source_key.cache_clear()
    jit._imports.cache_clear()
    start = time.perf_counter()
    for path in sources:
        jit.source_key(path)
    assert time.perf_counter() - start < 0.2  # a tenth of that on an idle machine
