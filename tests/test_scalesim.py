"""SCALE-Sim's files and figures: against its own reports, against a plain walk through every cycle, and every message."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel import cli
from accel.errors import AccelError, ConfigError, NetworkError
from accel.graph import topology as files
from accel.graph.topology import DENSE, Architecture, Convolution, Gemm, Layer, Topology, parse_architecture, parse_topology
from accel.schedule import scalesim
from accel.sparsity import Pattern
from tests import scalesim_oracle as oracle

ORACLE = json.loads(oracle.FIXTURE.read_text())
HEADER = "name, m, n, k,\n"
CONV = Convolution(6, 7, 3, 2, 2, 5, 1)


def unpadded() -> str:
    """ResNet-18 as SCALE-Sim's users write it: the layers' inputs as they are, no border for the zero padding."""
    rows, before = ["conv1, 224, 224, 7, 7, 3, 64, 2,"], 64
    for size, filters in ((56, 64), (28, 128), (14, 256), (7, 512)):
        for block in range(2):
            down = filters > 64 and block == 0
            entry = f"{2 * size}, {2 * size}" if down else f"{size}, {size}"
            rows.append(f"conv{size}_{block}a, {entry}, 3, 3, {before}, {filters}, {1 + down},")
            rows.append(f"conv{size}_{block}b, {size}, {size}, 3, 3, {filters}, {filters}, 1,")
            if down:
                rows.append(f"conv{size}_s, {entry}, 1, 1, {before}, {filters}, 2,")
            before = filters
    return "\n".join([oracle.CONV, *rows, "fc, 1, 1, 1, 1, 512, 1000, 1,"]) + "\n"


def one(shape, pattern=DENSE, **architecture) -> scalesim.LayerReport:
    (report,) = scalesim.simulate(Topology("t", (Layer("l", shape, pattern),)), Architecture(**architecture))
    return report


@pytest.mark.parametrize("case", list(oracle.cases()), ids=lambda case: case[0])
def test_reports_are_scalesims_own(case):
    """Every line that SCALE-Sim 3.0.0 wrote: cycles alike to the digit, percentages up to the rounding of its sums over folds."""
    name, topology, cfg = case
    layers = scalesim.simulate(parse_topology(topology, "t", "t"), parse_architecture(cfg, "a", "a"))
    lines = scalesim.compute_report(layers).splitlines()
    assert lines[0] == (
        "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,"
    )
    for ours, theirs in zip(lines[1:], ORACLE["reports"][name], strict=True):
        assert ours.split(", ")[:4] == theirs.split(", ")[:4]
        percentages = [[float(cell.rstrip(",")) for cell in line.split(", ")[4:]] for line in (ours, theirs)]
        assert percentages[0] == pytest.approx(percentages[1], rel=1e-11)


def test_oracle_is_the_version_we_claim():
    assert ORACLE["versions"]["scalesim"] == "3.0.0"
    assert set(ORACLE["reports"]) == {name for name, _, _ in oracle.cases()}


@pytest.mark.parametrize(
    ("run", "total"),
    [("os", 1718353), ("ws", 2519815), ("is", 2838997), ("os 2:4", 932395), ("ws 2:4", 1272091), ("ws 1:4", 663895)],
)
def test_its_own_resnet18(run, total):
    """Layer by layer, with prefetch and without: the topology that SCALE-Sim ships has no borders."""
    dataflow, _, pattern = run.partition(" ")
    topology = parse_topology(unpadded(), "t", "t")
    layers = tuple(dataclasses.replace(x, pattern=Pattern.parse(pattern or "1:1")) for x in topology.layers)
    reports = scalesim.simulate(Topology("t", layers), Architecture(dataflow=dataflow))
    assert [[x.prefetch_cycles, x.total_cycles] for x in reports] == ORACLE["unpadded"][run]
    assert sum(x.total_cycles for x in reports) == total


def test_resnet18_is_resnet18():
    """Multiplications of the convolutions and the linear layer at 224 x 224."""
    layers = files.load_topology("resnet18").layers
    assert len(layers) == 21
    assert sum(x.shape.m * x.shape.n * x.shape.k for x in layers) == 1_814_073_344
    assert [x.shape.m for x in layers[:2]] == [112 * 112, 56 * 56]


def naive(shape, pattern, arch) -> list[float]:
    """Walk through every fold, cycle and word: total with prefetch, total, overall, mapping and compute utilisation."""
    r, c, m, n = arch.rows, arch.cols, shape.m, shape.n
    taps = [j for j in range(shape.k) if j % pattern.m < pattern.n]
    k = len(taps)
    inputs: set[tuple[int, ...]] = set()
    if isinstance(shape, Gemm):
        inputs.update((i, j) for i in range(m) for j in taps)
    else:
        for i in range(m):
            top, left = (x * shape.stride for x in divmod(i, shape.outputs[1]))
            for j in taps:
                y, rest = divmod(j, shape.filter_width * shape.channels)
                x, channel = divmod(rest, shape.channels)
                if top + y < shape.height and left + x < shape.width:
                    inputs.add((top + y, left + x, channel))
    down, along, steps = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[arch.dataflow]
    cycle, mapping, compute = 0, [], []
    written: Counter[int] = Counter()
    for first_col in range(0, along, c):
        for first_row in range(0, down, r):
            rows, cols = min(r, down - first_row), min(c, along - first_col)
            if arch.dataflow == "os":  # element (i, j) multiplies its product s in cycle i + j + s; columns leave from the bottom
                written.update(cycle + steps - 1 + r - 1 - i + j for i in range(rows) for j in range(cols))
                length = 1 + max(i + j + s for i in (0, r - 1) for j in (0, c - 1) for s in (0, steps - 1))
                counted = length
            else:  # after r cycles of loading, step s of column j leaves the last row in cycle r - 1 + j + s
                written.update(cycle + r + r - 1 + s + j for s in range(steps) for j in range(cols))
                length = 1 + r + max(r - 1 + s + j for s in (0, steps - 1) for j in (0, c - 1))
                counted = length + c - 1
            mapping.append(rows * cols / (r * c))
            compute.append(rows * cols * steps / (r * c * counted))
            cycle += length
    held = max(r - down, 0)
    first = {"os": (0, 0), "ws": (r, held), "is": (held, r)}[arch.dataflow]
    start = min(naive_fetch(len(inputs), arch.ifmap_kb, first[0]), naive_fetch(k * n, arch.filter_kb, first[1]))
    overall = m * n * shape.k / (cycle - 1) / (r * c)
    return [
        naive_write(written, cycle, c, arch.ofmap_kb) - start,
        cycle - 1,
        *(100 * x for x in (overall, sum(mapping) / len(mapping), sum(compute) / len(compute))),
    ]


def naive_fetch(words, kb, first):
    """Ten words per cycle in whole hundredths of the scratchpad, until nothing is left to fetch or half of it is full."""
    part, fetched = 1024 * kb // 100, 0
    while fetched < words and fetched < 50 * part:
        fetched += part
    return (first if words >= 50 * part else 0) - -(-fetched // 10)


def naive_write(written, cycles, width, kb):
    """Word by word; a drain takes a line per cycle, and the next cannot begin before it has ended."""
    half = 512 * kb
    line, free, busy_until, stop = 0, 2 * half, 0, 0
    lines: list[int] = []

    def drain(cycle, count):
        nonlocal lines, free
        sent, lines = lines[:count], lines[count:]
        free += (len(sent) - 1) * width + sent[-1]
        return cycle + len(sent) - 1

    for cycle in range(cycles):
        for _ in range(written[cycle]):
            line, free = line + 1, free - 1
            if line == width:
                lines, line = [*lines, line], 0
            if cycle >= busy_until and free < half:
                lines, line = [*lines, line] if line else lines, 0
                busy_until = drain(cycle, -(-half // width))
                stop = max(stop, busy_until)
            assert free > 0 or cycle >= busy_until, "the array would wait"
    lines = [*lines, line] if line else lines
    return max(stop, drain(cycles - 1, len(lines))) if lines else stop


sizes = st.integers(1, 12)
gemms = st.builds(Gemm, st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
convolutions = st.tuples(sizes, sizes, st.integers(1, 5), st.integers(1, 5), sizes, sizes, st.integers(1, 6)).map(
    lambda x: Convolution(x[0] + x[2] - 1, x[1] + x[3] - 1, *x[2:])
)
patterns = st.sampled_from([Pattern(n, m) for m in (1, 2, 3, 4, 8) for n in range(1, m + 1)])
architectures = st.builds(
    Architecture,
    rows=st.integers(1, 9),
    cols=st.sampled_from([1, 2, 3, 5, 8, 40, 600]),
    dataflow=st.sampled_from(["os", "ws", "is"]),
    ifmap_kb=st.integers(1, 2),
    filter_kb=st.integers(1, 2),
    ofmap_kb=st.integers(1, 2),
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(gemms, convolutions), patterns, architectures)
@example(
    Convolution(8, 11, 1, 3, 8, 1, 3), Pattern(1, 1), Architecture(rows=4, cols=2, ifmap_kb=1, filter_kb=1)
)  # a window beyond the input
@example(Gemm(125, 1, 4), Pattern(1, 1), Architecture(rows=9, dataflow="is", ifmap_kb=1, filter_kb=1))  # to the word half full, late
@example(Gemm(300, 40, 2), Pattern(1, 1), Architecture(rows=3, cols=7, ofmap_kb=1))  # lines that drains leave unfinished
def test_closed_forms_are_the_plain_walk(shape, pattern, arch):
    report = one(shape, pattern, **{field.name: getattr(arch, field.name) for field in dataclasses.fields(arch)})
    if report.total_cycles == 0:
        return  # SCALE-Sim divides by it
    ours = [
        report.prefetch_cycles,
        report.total_cycles,
        report.overall_utilisation,
        report.mapping_efficiency,
        report.compute_utilisation,
    ]
    assert ours == pytest.approx(naive(shape, pattern, arch), rel=1e-11)


def test_patterns_count_only_where_the_architecture_says_so():
    sparse, dense = one(CONV, Pattern(1, 4)), one(CONV, Pattern(1, 4), sparsity=False)
    assert sparse.total_cycles < dense.total_cycles == one(CONV).total_cycles
    assert dense.pattern == Pattern(1, 1)


def test_large_layers_are_instant():
    """Totals are exact integers of any size; writes that are too many to follow are not told, and leave an empty cell."""
    begin = time.perf_counter()
    report = one(Gemm(2**31 - 1, 2**31 - 1, 2**31 - 1), dataflow="ws", ofmap_kb=1)
    assert time.perf_counter() - begin < 5
    assert report.total_cycles == (2**26) ** 2 * (3 * 32 + 2**31 - 3) - 1
    assert report.prefetch_cycles is None
    assert scalesim.compute_report([report]).splitlines()[1].startswith(f"0, , {report.total_cycles}, 0, ")


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"bandwidth": (10,)}, "^InterfaceBandwidth must be CALC, not USER: "),
        ({"row_wise": True}, "^OptimizedMapping must be false, not true: "),
    ],
)
def test_what_is_not_modelled_is_refused(architecture, message):
    with pytest.raises(ConfigError, match=message):
        one(CONV, **architecture)


def test_array_of_one_element_and_one_product():
    """The one total of 0, by which SCALE-Sim itself divides."""
    assert one(Gemm(1, 1, 1), rows=1, cols=1).total_cycles == 0


# --- topologies


def test_forms_of_a_topology():
    """Trailing commas, blank lines, comments, a byte-order mark's absence or presence, and line ends make no difference."""
    plain = parse_topology("Layer, M, N, K,\na, 1, 2, 3,\nb, 4, 5, 6, 2:4,\n", "t", "t")
    odd = parse_topology("# made by hand\r\n\r\nLayer, M, N, K\r\n  # more\r\na,1,2,3\rb , 4,5 ,6,2:4,,,\n\n,,\n", "t", "t")
    assert plain == odd
    assert plain.layers == (Layer("a", Gemm(1, 2, 3)), Layer("b", Gemm(4, 5, 6), Pattern(2, 4)))
    conv = parse_topology("h\nc, 6, 7, 3, 2, 2, 5, 1\nd, 6, 7, 3, 2, 2, 5, 1, 1:4", "t", "t")
    assert conv.layers == (Layer("c", CONV), Layer("d", CONV, Pattern(1, 4)))


def test_shapes():
    assert (CONV.outputs, CONV.m, CONV.n, CONV.k) == ((4, 6), 24, 5, 12)
    assert Convolution(8, 11, 1, 3, 8, 1, 3).outputs == (4, 4)  # SCALE-Sim rounds up: a window may begin beyond the input


def test_depthwise_layers_are_a_layer_per_channel():
    layers = parse_topology("h\nDP1, 6, 7, 3, 2, 3, 1, 1,", "t", "t").layers
    assert [x.name for x in layers] == ["DP1Channel_0", "DP1Channel_1", "DP1Channel_2"]
    assert {x.shape for x in layers} == {Convolution(6, 7, 3, 2, 1, 1, 1)}


CONV_FORM = "name, height, width, filter height, filter width, channels, filters, stride and perhaps N:M"
GEMM_FORM = "name, m, n, k and perhaps N:M"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv:1: topology must be at least one layer below the names of its columns, not none"),
        ("\n\nh,\n# nothing\n", "t.csv:3: topology must be at least one layer below the names of its columns, not none"),
        ("conv1, 1, 2, 3,\n", "t.csv:1: first line must be the names of the columns, not the layer 'conv1'"),
        ("name, M, K, N,\na, 1, 2, 3,\n", "t.csv:1: columns must be in the order m, n, k, not m, k, n"),
        (HEADER + "a, 1, 2,\n", f"t.csv:2: layer must be {GEMM_FORM} or {CONV_FORM}, not 3 columns"),
        (HEADER + "a, 1, 2, 3, 1:1, 5,\n", f"t.csv:2: layer must be {GEMM_FORM} or {CONV_FORM}, not 6 columns"),
        (HEADER + "a, 1, 2, 3,\n\nb, 6, 7, 3, 2, 2, 5, 1,\n", f"t.csv:4: layer must be {GEMM_FORM}, not 8 columns"),
        ("h\na, 6, 7, 3, 2, 2, 5, 1,\nb, 6, 7, 3, 2, 2, 5, 1, 1, 2:4,\n", f"t.csv:3: layer must be {CONV_FORM}, not 10 columns"),
        (HEADER + ", 1, 2, 3,\n", "t.csv:2: name must be printable text, not ''"),
        (HEADER + "a\x07, 1, 2, 3,\n", r"t.csv:2: name must be printable text, not 'a\x07'"),
        (HEADER + "a, 0, 2, 3,\n", "t.csv:2: m must be an int in [1, 2147483647], not 0"),
        (HEADER + "a, 1, -2, 3,\n", "t.csv:2: n must be an int in [1, 2147483647], not '-2'"),
        (HEADER + "a, 1, 2, 3.0,\n", "t.csv:2: k must be an int in [1, 2147483647], not '3.0'"),
        (HEADER + "a, 1, 2, 2147483648,\n", "t.csv:2: k must be an int in [1, 2147483647], not 2147483648"),
        (HEADER + f"a, 1, 2, {'9' * 99},\n", f"t.csv:2: k must be an int in [1, 2147483647], not '{'9' * 59}..."),
        (HEADER + "a, 1, , 3,\n", "t.csv:2: n must be an int in [1, 2147483647], not ''"),
        (HEADER + "a, 1, 2, \u0663,\n", "t.csv:2: k must be an int in [1, 2147483647], not '\u0663'"),
        (HEADER + "a, 1, 2, 3, half,\n", "t.csv:2: pattern must be N:M such as 2:8, not 'half'"),
        (HEADER + "a, 1, 2, 3, 5:4,\n", "t.csv:2: n must be an int in [1, 4], not 5"),
        (HEADER + "a, 1, 2, 3, 1:64,\n", "t.csv:2: m must be an int in [1, 32], not 64"),
        ("h\na, 65537, 7, 3, 2, 2, 5, 1,\n", "t.csv:2: height must be an int in [1, 65536], not 65537"),
        ("h\na, 6, 7, 3, 2, 2, 5, 0,\n", "t.csv:2: stride must be an int in [1, 65536], not 0"),
        ("h\na, 6, 7, 7, 2, 2, 5, 1,\n", "t.csv:2: filter_height must be at most height (6), not 7"),
        ("h\na, 6, 7, 3, 8, 2, 5, 1,\n", "t.csv:2: filter_width must be at most width (7), not 8"),
        ("h\nDP, 6, 7, 3, 2, 65537, 1, 1,\n", "t.csv:2: channels must be at most 65536 in a depthwise layer, not 65537"),
        ("h\n" + "DP, 6, 7, 3, 2, 65536, 1, 1,\n" * 2, "t.csv:3: topology must be at most 65536 layers, not more"),
    ],
)
def test_malformed_topologies(text, message, tmp_path, monkeypatch):
    """From a file as from text."""
    with pytest.raises(NetworkError) as error:
        parse_topology(text, "t.csv", "t")
    assert str(error.value) == message
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(text, encoding="utf-8-sig")
    with pytest.raises(NetworkError) as error:
        files.load_topology("t.csv")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"h\na, 1, 2, \xff,\n", "t.csv:2: topology must be UTF-8 text, not the byte 0xff"),
        (b"h\n" + b"#" * 1001, "t.csv:2: line must be at most 1000 characters, not 1001"),
        (b"\n" * (files.FILE_LIMIT + 1), f"t.csv:1: topology must be at most {files.FILE_LIMIT} bytes, not more"),
        (None, "topology must be a file or one of resnet18, not 't.csv'"),
    ],
    ids=["bytes", "line", "size", "missing"],
)
def test_unreadable_topologies(data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if data is not None:
        Path("t.csv").write_bytes(data)
    with pytest.raises(NetworkError) as error:
        files.load_topology("t.csv")
    assert str(error.value) == message


@pytest.mark.parametrize("read", [files.load_topology, files.load_architecture])
def test_what_is_no_file(read, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "no\0name", ""):
        with pytest.raises(AccelError, match=r"^(topology|cfg) must be a file( or one of resnet18)?, not "):
            read(path)
    with pytest.raises(AccelError, match=r"^(topology|cfg) must be a path( or one of resnet18)?, not 3$"):
        read(3)
    with pytest.raises(AccelError, match=r"^(topology|cfg) must be a file that can be read, not 'x+\.\.\. \(File name too long\)$"):
        read("x" * 5000)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab,:#1290 -\n\r\tDP[]=\x00\u0663"), max_size=80))
def test_any_text_is_read_or_refused(text):
    for parse, prefix in ((parse_topology, "name,\n"), (parse_architecture, "[architecture_presets]\n")):
        for content in (text, prefix + text):
            with contextlib.suppress(NetworkError, ConfigError):
                parse(content, "t", "t")


# --- architectures

CFG = oracle.cfg(8, 4, "ws", (1, 2, 3))


def test_architecture():
    assert parse_architecture(CFG, "a", "a") == Architecture(
        name="oracle", rows=8, cols=4, dataflow="ws", ifmap_kb=1, filter_kb=2, ofmap_kb=3, sparsity=False
    )
    text = CFG.replace("CALC", "USER").replace("Bandwidth: 10", "Bandwidth = 10, 20", 1).replace("Support: false", "Support: TRUE")
    found = parse_architecture(text.replace("OptimizedMapping: false", "OptimizedMapping: True"), "a", "a")
    assert (found.bandwidth, found.sparsity, found.row_wise) == ((10, 20), True, True)


def test_architecture_without_what_scalesim_2_did_not_have():
    text = CFG[: CFG.index("[layout]")].replace("run_name: oracle\n", "")
    assert parse_architecture(text, "a", "file") == dataclasses.replace(parse_architecture(CFG, "a", "a"), name="file")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ArrayHeight: 8\n", "", "a.cfg:3: ArrayHeight must be given in [architecture_presets], not missing"),
        ("[architecture_presets]", "[general2]", "a.cfg:1: ArrayHeight must be given in [architecture_presets], not missing"),
        ("ArrayHeight: 8", "ArrayHeight: 0", "a.cfg:4: ArrayHeight must be an int in [1, 65536], not 0"),
        ("ArrayWidth: 4", "arraywidth = four", "a.cfg:5: ArrayWidth must be an int in [1, 65536], not 'four'"),
        ("IfmapSramSzkB: 1", "IfmapSramSzkB:", "a.cfg:6: IfmapSramSzkB must be an int in [1, 1048576], not ''"),
        ("FilterSramSzkB: 2", "FilterSramSzkB: -2", "a.cfg:7: FilterSramSzkB must be an int in [1, 1048576], not '-2'"),
        ("OfmapSramSzkB: 3", "OfmapSramSzkB: 1048577", "a.cfg:8: OfmapSramSzkB must be an int in [1, 1048576], not 1048577"),
        ("Dataflow: ws", "Dataflow: WS", "a.cfg:12: Dataflow must be one of os, ws, is, not 'WS'"),
        ("run_name: oracle", "run_name:", "a.cfg:2: run_name must be a non-empty string, not ''"),
        ("SparsitySupport: false", "SparsitySupport: no", "a.cfg:26: SparsitySupport must be true or false, not 'no'"),
        ("OptimizedMapping: false", "OptimizedMapping: 0", "a.cfg:28: OptimizedMapping must be true or false, not '0'"),
        ("InterfaceBandwidth: CALC", "InterfaceBandwidth: calc", "a.cfg:32: InterfaceBandwidth must be CALC or USER, not 'calc'"),
        ("ArrayWidth: 4", "ArrayHeight: 4", "a.cfg:5: arrayheight must be given once, not again"),
        ("[sparsity]", "[layout]", "a.cfg:25: section must be given once, not [layout] again"),
        ("[general]\n", "", "a.cfg:1: section must be named before the first key, not 'run_name: oracle\\n'"),
        ("ArrayWidth: 4", "ArrayWidth 4", "a.cfg:5: line must be a [section] or 'key: value', not 'ArrayWidth 4\\n'"),
    ],
)
def test_malformed_architectures(old, new, message, tmp_path, monkeypatch):
    assert old in CFG
    text = CFG.replace(old, new, 1)
    monkeypatch.chdir(tmp_path)
    Path("a.cfg").write_text(text)
    with pytest.raises(ConfigError) as error:
        files.load_architecture("a.cfg")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("bandwidth", "message"),
    [
        ("Bandwidth: fast\n", "a:13: Bandwidth must be positive ints, not 'fast'"),
        ("Bandwidth: 10, 0\n", "a:13: Bandwidth must be positive ints, not '10, 0'"),
        ("", "a:3: Bandwidth must be given in [architecture_presets], not missing"),
    ],
)
def test_malformed_bandwidths(bandwidth, message):
    """Looked at only where it counts."""
    text = CFG.replace("Bandwidth: 10\n", bandwidth, 1)
    assert parse_architecture(text, "a", "a").bandwidth == ()
    with pytest.raises(ConfigError) as error:
        parse_architecture(text.replace("CALC", "USER"), "a", "a")
    assert str(error.value) == message


# --- command line


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main(["simulate", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_command_prints_and_writes(capsys, tmp_path):
    (tmp_path / "scale.cfg").write_text(oracle.cfg(32, 32, "os"))
    code, out, err = run(capsys, "resnet18", "--compat", "scalesim", "--cfg", tmp_path / "scale.cfg", "--out", tmp_path / "out")
    layers = scalesim.simulate(files.load_topology("resnet18"), Architecture())
    assert code == 0
    assert "COMPUTE_REPORT.csv is in" in err
    assert f"resnet18 on oracle (32x32, os): {sum(x.total_cycles for x in layers):,} cycles" in out
    assert "to compare with it, not what our hardware takes" in out
    written = (tmp_path / "out" / "COMPUTE_REPORT.csv").read_text()
    assert written == scalesim.compute_report(layers)
    rows = list(csv.reader(io.StringIO(written), skipinitialspace=True))
    assert rows[1][:4] == ["0", "167642", "163855", "0"]


def test_command_takes_the_array_of_a_configuration(capsys):
    code, out, _ = run(capsys, "resnet18", "--compat", "scalesim", "--set", "rows=8", "--pattern", "2:4")
    assert code == 0
    assert "(8x16, os)" in out
    assert out.count("2:4") == 21


def test_command_without_pruning(capsys, tmp_path):
    """`dense` overrules the column of the file; cycles that are not told leave a dash and no sum."""
    path = tmp_path / "huge.csv"
    path.write_text(HEADER + f"a, {2**31 - 1}, {2**31 - 1}, 64, 1:4,\n")
    code, out, _ = run(capsys, path, "--compat", "scalesim", "--pattern", "dense")
    assert code == 0
    assert "dense" in out
    assert "with prefetch\n" not in out.splitlines()[-2]
    assert f"{one(Gemm(2**31 - 1, 2**31 - 1, 64), rows=16, cols=16).total_cycles:,} cycles\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compat", "scalesim", "--inputs", "x.npz"), "inputs must be left out with --compat scalesim, not 'x.npz'"),
        (("--compat", "scalesim", "--batch", "2"), "batch must be left out with --compat scalesim, not '2'"),
        (("--compat", "scalesim", "--json"), "json must be left out with --compat scalesim, not 'True'"),
        (("--compat", "scalesim", "--pattern", "x"), "pattern must be N:M such as 2:8, not 'x'"),
        (("--compat", "scalesim", "--cfg", "no.cfg"), "cfg must be a file, not 'no.cfg'"),
        (("--cfg", "no.cfg"), "cfg must come with --compat scalesim, not alone ('no.cfg')"),
    ],
)
def test_command_refuses(arguments, message, capsys):
    code, _, err = run(capsys, "resnet18", *arguments)
    assert code == 2
    assert err == f"accel: error: {message}\n"
