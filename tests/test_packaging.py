"""What a plain `pip install .` puts into site-packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources: a leftover `build/` would add modules that are gone."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("accel", "rtl", "sim"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(tree)]
    subprocess.run(build, check=True)
    (built,) = out.glob("accel-*-py3-none-any.whl")
    return built


def test_wheel_holds_one_package(wheel):
    """Everything is under `accel`, rtl and sim included: site-packages gets no bare `sim`."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"accel", wheel.name.rpartition("-py3")[0] + ".dist-info"}


def test_wheel_holds_every_file(wheel):
    """Modules and data (presets, schema, networks) arrive as they are in the tree."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    tree = {Path("accel"): ROOT / "accel", Path("accel/rtl"): ROOT / "rtl", Path("accel/sim"): ROOT / "sim"}
    kept = {".py", ".typed", ".yaml", ".json", ".onnx", ".npz", ".csv"}
    files = {str(at / path.relative_to(root)) for at, root in tree.items() for path in root.rglob("*") if path.suffix in kept}
    assert packed == files


def test_installed_package_works(wheel, tmp_path):
    """From the wheel alone, away from the repository, the command line runs and rtl and sim are found."""
    venv.create(tmp_path / "venv", symlinks=True)
    site = next((tmp_path / "venv" / "lib").glob("python3*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies of this environment stand in for an installation of them, without the editable `accel`.
    (site / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def python(*arguments: str) -> str:
        command = [tmp_path / "venv" / "bin" / "python", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=clean, check=True, stdout=subprocess.PIPE, text=True).stdout

    places = python("-c", "import accel.rtl.core as rtl, accel.sim.blocks as sim; print(rtl.__file__, sim.__file__)").split()
    assert places == [str(site / "accel/rtl/core.py"), str(site / "accel/sim/blocks.py")]
    assert "edge-int8" in python("-m", "accel", "list")


def test_every_dependency_is_bounded():
    """Each requirement states a version and, behind it, a reason."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    project = tomllib.loads("\n".join(lines))["project"]
    wanted = [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    for requirement in wanted:
        assert any(mark in requirement for mark in (">=", "=="))
        assert any(f'"{requirement}"' in line and "#" in line for line in lines)
