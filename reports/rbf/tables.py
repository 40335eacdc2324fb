"""Write what was measured as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel.functions.cost import FAMILIES
from reports.rbf import figures, network


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _cells(area: dict[str, Any]) -> list[object]:
    """Look-up tables, and the columns beside them."""
    counts = area["counts"]
    return [f"**{counts['lut']}**", area["routes"], counts["inv"], counts["mux"], counts["carry"], area["levels"]]


def points(measured: dict[str, Any]) -> str:
    """Show the named points: errors, and cells in each family."""
    headings = [
        "fed with",
        "asked",
        *(
            f"{name} {family}"
            for family in FAMILIES
            for name in ("max error", "mean error", "LUT", "routes", "INV", "MUXF", "carry", "levels")
        ),
    ]
    rows = []
    for point in measured["points"]:
        row: list[object] = [point["operand"], point["error"]]
        for family in FAMILIES:
            found = point[family]
            row += [f"{found['max_error']:.6f}", f"{found['mean_error']:.6f}", *_cells(found["area"])]
        rows.append(row)
    return table(headings, rows)


def proofs(measured: dict[str, Any]) -> str:
    """Show what was run and proven of each named point."""
    rows = []
    for point in measured["points"]:
        run, zero = point["exhaustive"], point["xc3s"]["zero_from"]
        ends = "-" if "zero" not in point["proven"] else "never" if zero is None else zero * 2.0**-12
        rows.append(
            [
                point["operand"],
                point["error"],
                f"{run['operands']:,}",
                run["differences"],
                ", ".join(point["proven"]),
                ends,
            ]
        )
    return table(["fed with", "asked", "operands in the RTL", "differences", "proven", "zero from"], rows)


def anchors(measured: dict[str, Any]) -> str:
    """Show the units to beat beside ours."""
    rows = []
    for anchor in measured["anchors"]:
        row: list[object] = [anchor["label"], anchor["error"]]
        for family in FAMILIES:
            found = anchor[family]
            row += [anchor["luts"][family], f"**{found['area']['counts']['lut']}**", f"{found['max_error']:.5f}"]
        rows.append(row)
    return table(["unit", "its error", *(f"{name} {family}" for family in FAMILIES for name in ("its LUT", "our LUT", "our error"))], rows)


def nets(measured: list[dict[str, Any]]) -> str:
    """Show the published network."""
    rows = []
    for row in measured:
        error = row["end to end"]
        for label, area in row["area"].items():
            counts = area["counts"]
            rows.append(
                [
                    row["unit error"],
                    label,
                    f"**{counts['lut']}**",
                    counts["dsp"],
                    counts["inv"],
                    counts["mux"],
                    counts["carry"],
                    counts["ff"],
                    f"{error['max_error']:.4f}",
                    f"{error['mean_error']:.5f}",
                ]
            )
    return table(["error of its units", "multipliers", "LUT4", "MULT18X18", "INV", "MUXF", "carry", "FF", "max error", "mean error"], rows)


def sets(measured: list[dict[str, Any]]) -> str:
    """Show real data."""
    rows = [
        [
            row["set"],
            row["features"],
            row["neurons"],
            row["output"],
            row["measure"],
            f"{row['float']:.4f}",
            f"{row['fixed']:.4f}",
            f"{row['largest difference of a split']:.4f}",
            f"{row['rtl']['samples']}, {row['rtl']['differences']}",
        ]
        for row in measured
    ]
    return table(
        ["set", "features", "neurons", "output", "measure", "float", "fixed", "largest difference", "samples in the RTL, differences"], rows
    )


def page(measured: dict[str, Any]) -> str:
    """Return the page of the report: ``page.md`` with its fields filled in."""
    area, loop = measured["units"]["points"][0]["xc3s"]["area"], measured["control"]
    told = {"without": "without the network", "float": "in floating point", "fixed": "in fixed point"}
    return (
        Path(__file__)
        .with_name("page.md")
        .read_text()
        .format(
            paper_gaussian=figures.PAPER["luts"],
            paper_error=figures.PAPER["error"],
            paper_network=network.PAPER["luts"],
            tool=f"{area['tool']} {area['version']}",
            flags=area["flags"],
            points=points(measured["units"]),
            proofs=proofs(measured["units"]),
            anchors=anchors(measured["units"]),
            nets=nets(measured["network"]),
            samples=measured["network"][0]["end to end"]["samples"],
            sets=sets(measured["data"]),
            plant=loop["plant"],
            steps=loop["rtl"]["steps"],
            differences=loop["rtl"]["differences"],
            rms=", ".join(f"{loop['rms rad, undisturbed'][run]:.4f} {words}" for run, words in told.items()),
        )
    )
