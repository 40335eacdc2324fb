"""The layout as a test: who imports whom, every block's twins, and signatures that docstrings and README repeat."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from amaranth.lib import wiring

from accel.sim import blocks
from accel.sim.mutants import MUTANTS

ROOT = Path(__file__).parents[1]

# A module may import from its own entry's package and from every layer above it in this table.
LAYERS = (
    ("errors", "formats", "config", "presets", "networks", "lfsr", "isa", "functions", "files", "jit"),  # the vocabulary
    ("golden", "timing", "kernels"),
    ("sparsity", "quant"),
    ("special",),
    ("graph",),
    ("schedule",),
    ("result", "step_result", "engine"),
    ("rbf", "training", "verification"),
    ("sim",),
    ("reports",),
    ("__init__",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
VOCABULARY = set(LAYERS[0])
# Neighbours in a layer that know each other, in this direction only.
SAME_LAYER = {(own, target) for own in VOCABULARY for target in VOCABULARY}
SAME_LAYER |= {("engine", "result"), ("engine", "step_result"), ("step_result", "result")}
# Distributions that a package must not reach; `accel` stands for everything that is neither rtl nor sim nor cli.
FORBIDDEN = {
    "accel": {"amaranth", "cocotb", "cocotb_tools", "matplotlib", "onnxruntime", "sklearn", "torch", "tests"},
    "rbf": {"amaranth", "cocotb", "cocotb_tools", "matplotlib", "onnxruntime", "torch", "tests"},
    "cli": {"amaranth", "cocotb", "cocotb_tools", "tests"},
    "rtl": {"cocotb", "cocotb_tools", "numba", "numpy", "onnx", "tests"},
    "sim": {"onnx", "onnxruntime", "sklearn", "tests"},
}
# What is optional may be imported inside functions of these modules, which do without it or say what is missing.
OPTIONAL = {
    "graph/evaluate.py": {"onnxruntime"},
    "graph/module.py": {"torch"},
    "training/data.py": {"sklearn"},  # the digits, for `accel train` and `accel.train` alike
    "verification/compare.py": {"onnxruntime"},
}
SPELLED_OUT = {"config", "engine", "formats", "isa"}  # here every argument is documented; elsewhere one line may do
FAMILIES = sorted({block.family for block in blocks.BLOCKS.values()})
MODELS = {(package, family) for package in ("golden", "timing") for family in FAMILIES}
WITHOUT_TWIN = {"arithmetic", "checks", "special", "training"}  # what golden models share; operators that have no hardware yet


def sources() -> list[Path]:
    """Return every module of the package, relative to it, as `golden/stce.py`."""
    roots = {"": ROOT / "accel", "rtl": ROOT / "rtl", "sim": ROOT / "sim"}
    found = {prefix / path.relative_to(root) for prefix, root in ((Path(p), r) for p, r in roots.items()) for path in root.rglob("*.py")}
    return sorted(found)


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a module of the package."""
    return ast.parse((ROOT / "accel" / path).read_text())


def layer(path: Path) -> str:
    """Return the entry of LAYERS (or `rtl`) that a module belongs to."""
    return path.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module, dotted, and whether the import stands inside a function, or serves types alone."""
    functions: list[ast.AST] = [node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    functions += [node for node in ast.walk(tree(path)) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    inside = {id(child) for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(("accel", *path.parts)[: -node.level]) + "." if node.level else ""
            module = f"{home}{node.module or ''}".rstrip(".")
            names = [f"accel.{alias.name}" for alias in node.names] if module == "accel" else [module]
            yield from ((name, id(node) in inside) for name in names)


def offences(path: Path) -> Iterator[str]:
    """Yield each import of a module that the tables forbid."""
    own = layer(path)
    group = own if own in FORBIDDEN else "accel"
    for name, inside in imports(path):
        package, _, rest = name.partition(".")
        if package in FORBIDDEN[group] | {"rtl", "sim"} and not (inside and package in OPTIONAL.get(path.as_posix(), ())):
            yield name
        if package != "accel":
            continue
        target = rest.partition(".")[0]
        target = target if target in LEVEL or target == "rtl" else "__init__"
        if own == "rtl":
            allowed = target in VOCABULARY | {"rtl"}
        elif target == "rtl":
            allowed = own == "sim" or (own == "cli" and inside)
        elif own == "cli" and target in {"sim", "reports"}:
            allowed = inside
        else:
            allowed = target == own or LEVEL[target] < LEVEL[own] or (own, target) in SAME_LAYER
        if not allowed:
            yield name


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_point_downwards(path):
    """No module reaches its own level or above, rtl knows the vocabulary alone, and only sim knows both sides."""
    assert layer(path) in LEVEL or layer(path) == "rtl", f"LAYERS must list {layer(path)}"
    assert not list(offences(path))


def public(path: Path) -> dict[str, Any]:
    """Return the public functions and classes that a module defines, by name; compiled kernels are bare and belong to their callers."""
    module = importlib.import_module(".".join(("accel", *path.with_suffix("").parts)).removesuffix(".__init__"))
    return {
        node.name: getattr(module, node.name)
        for node in tree(path).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not any("kernel" in ast.unparse(mark) or "intrinsic" in ast.unparse(mark) for mark in node.decorator_list)
    }


def signature(thing: Any) -> list[str]:
    """Return the names that a call of a function, or of a class with a constructor of its own, takes."""
    if dataclasses.is_dataclass(thing):
        return [field.name for field in dataclasses.fields(thing) if field.init]
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return list(getattr(thing, "_fields", ()))
    return [name for name in inspect.signature(thing).parameters if name != "self"]


def own_fields(thing: Any) -> list[str]:
    """Return the signature without what a dataclass takes from its base."""
    inherited = [*dataclasses.fields(thing.__base__)] if inspect.isclass(thing) and dataclasses.is_dataclass(thing.__base__) else []
    return [name for name in signature(thing) if name not in {field.name for field in inherited}]


def documented(thing: Any) -> list[str]:
    """Return the names under `Parameters` in a numpydoc docstring."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", inspect.getdoc(thing) or "", re.DOTALL | re.MULTILINE)
    if section is None:
        return []
    entries = [line.partition(" :")[0] for line in section[1].splitlines() if line and not line[0].isspace()]
    return [name for entry in entries for name in re.split(r",\s*\**", entry.lstrip("*"))]


@pytest.mark.parametrize("path", sources(), ids=str)
def test_docstrings_name_the_arguments(path):
    """A `Parameters` section lists exactly the signature, in its order; a block's function and the public vocabulary have one."""
    whole = layer(path) in SPELLED_OUT
    things = {name: thing for name, thing in public(path).items() if whole or documented(thing) or (layer(path), name) in MODELS}
    wrong = {name: documented(thing) for name, thing in things.items() if documented(thing) not in (signature(thing), own_fields(thing))}
    assert not wrong


@pytest.mark.parametrize("path", [path for path in sources() if layer(path) != "rtl"], ids=str)
def test_public_functions_are_typed(path):
    """Kernels may be bare for mypy, so it is checked here that public functions are annotated."""
    functions = [thing for thing in public(path).values() if inspect.isfunction(thing)]
    bare = [function.__name__ for function in functions if {*signature(function), "return"} > set(function.__annotations__)]
    assert not bare


@pytest.mark.parametrize("family", FAMILIES)
def test_block_has_its_five_places(family):
    """Golden function, timing, RTL class, bench and tests of a block bear the name of its family, and its bench catches planted bugs."""
    for package in ("golden", "timing"):
        assert callable(getattr(importlib.import_module(f"accel.{package}.{family}"), family))
    component = getattr(importlib.import_module(f"accel.rtl.{family}"), family.title().replace("_", ""))
    assert inspect.isclass(component)
    assert issubclass(component, wiring.Component)
    assert (ROOT / "sim" / f"tb_{family}.py").is_file()
    assert (ROOT / "tests" / f"test_{family}.py").is_file()
    assert len(MUTANTS[family]) >= 5


@pytest.mark.parametrize("package", ["accel/golden", "accel/timing"])
def test_model_has_its_hardware(package):
    """Every golden model and every timing is that of a registered block."""
    models = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"} - WITHOUT_TWIN
    assert models == set(FAMILIES)


def test_benches_are_registered():
    """No bench and no set of mutants is left out of the registry."""
    assert {path.stem.removeprefix("tb_") for path in (ROOT / "sim").glob("tb_*.py")} == set(FAMILIES) == set(MUTANTS)


def test_readme_shows_the_registry():
    """README's block table is the output of `python -m accel.sim.blocks`."""
    shown = re.search(r"<!-- blocks -->\n(.*?)<!-- end -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == blocks.table().strip()


def test_no_path_of_a_machine():
    """No tracked text names a directory of the machine it was written on."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    pattern = re.compile(rb"/(?:work|root|home|Users)" + rb"/\w")
    named = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file() and pattern.search((ROOT / name).read_bytes())]
    assert not named
