"""``python -m reports.backend`` writes README.md and result.json: ONNX's backend tests of every supported operator."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import yaml

from reports.backend.cases import cases, expanded
from reports.backend.run import PRESET, SHARE, Outcome, run

HERE = Path(__file__).parent
REASONS = HERE.parents[1] / "tests" / "backend_skips.yaml"
HEAD = """\
# ONNX's backend tests

`python -m reports.backend` writes this page and `result.json`. It runs every node test of ONNX's backend suite (onnx {onnx}) whose operator
is imported here: inputs that networks hold as constants are bound to the test's values (`accel.load(path, constants=...)`), with
`whole=True` where axis 0 does not count samples. Tests on reals are calibrated from the test's own data at 16 bits (`{preset}`), and each
element must be within a bound that `bounds.py` computes from the formats; a bound beyond {share} of the output's range is listed and not
counted as passed. Tests on integers must be equal, up to one where they are requantised.

{tests} tests: **{passed} passed**, {listed} listed, {skipped} skipped. Of the {integers} tests on integers that passed, the largest share
of elements that differ at all is {rate}. {expanded} more spell an operator out in others (`_expanded`), and those are tested one by one.
Tests whose node also writes what training reads are run twice, with all outputs and with the first alone.

Computed by: *array* and *vector* have RTL, *special* is fixed point bit for bit, *memory* only moves, *host* is float, *folded* is a
constant of the network; `-` is nothing at all, as the result is the operand.

| Operator | Passed | Listed | Skipped | Computed by |
|---|--:|--:|--:|---|"""


def main() -> None:
    """Run all tests and write the report."""
    outcomes = [run(case) for case in cases().values()]
    skipped = yaml.safe_load(REASONS.read_text())["skipped"]
    reasons = {
        each.name: next((why for pattern, why in skipped.items() if fnmatchcase(each.name, pattern)), each.reason or "fails")
        for each in outcomes
        if each.status not in ("passed", "listed")
    }
    (HERE / "README.md").write_text(_page(outcomes, reasons))
    found = {each.name: {key: value for key, value in asdict(each).items() if value not in ((), "", None)} for each in outcomes}
    result = {"onnx": onnx.__version__, "config": PRESET, "tests": found, "skipped": reasons}
    (HERE / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


def _page(outcomes: list[Outcome], reasons: dict[str, str]) -> str:
    """Write the page."""
    by_kind: defaultdict[str, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        by_kind[each.kind].append(each)
    total = Counter(each.status if each.status in ("passed", "listed") else "skipped" for each in outcomes)
    quantised = [each for each in outcomes if each.status == "passed" and each.bound is None and "folded" not in each.units]
    rate = max((each.differing for each in quantised), default=0.0)
    facts = {
        "onnx": onnx.__version__,
        "preset": PRESET,
        "share": f"{SHARE:.0%}",
        "tests": len(outcomes),
        "passed": total["passed"],
        "listed": total["listed"],
        "skipped": total["skipped"],
        "integers": len(quantised),
        "rate": f"{rate:.2%}",
        "expanded": len(expanded()),
    }
    lines = [HEAD.format(**facts)]
    for kind in sorted(by_kind):
        count = Counter(each.status if each.status in ("passed", "listed") else "skipped" for each in by_kind[kind])
        units = Counter(" + ".join(each.units) or "-" for each in by_kind[kind] if each.status in ("passed", "listed"))
        shown = ", ".join(f"{unit} {number}" if len(units) > 1 else unit for unit, number in units.most_common())
        lines.append(f"| {kind} | {count['passed']} | {count['listed'] or ''} | {count['skipped'] or ''} | {shown} |")
    lines += ["", "## Listed", "", "| Test | Largest difference | Largest bound | Share of the range |", "|---|--:|--:|--:|"]
    lines += [f"| {each.name} | {each.worst:.3g} | {each.bound:.3g} | {each.share:.1%} |" for each in outcomes if each.status == "listed"]
    lines += ["", "## Skipped", "", "| Reason | Tests |", "|---|---|"]
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, why in reasons.items():
        names[why].append(name.removeprefix("test_"))
    lines += [f"| {why} | {', '.join(each)} |" for why, each in names.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
