"""Planted faults: what an inspection finds of them, and what it cries wolf about.

    python benchmarks/inspection.py [FOLDER ...]

Writes benchmarks/results/inspection.md. Further data sets, which are taken for clean, may be named.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import planted_files  # noqa: E402  # importing registers the faults
import planted_maps  # noqa: E402
from perpixel.inspection import Finding, Inspection, inspect_folder, inspect_recipe  # noqa: E402
from perpixel.recipe import Recipe  # noqa: E402
from planted import CLEAN, FAULTS, Fault, copy_of  # noqa: E402

assert planted_files and planted_maps
RESULT = HERE / "results" / "inspection.md"


@dataclass
class Outcome:
    """One planted fault and what was said of it."""

    fault: Fault
    finding: Finding | None
    wolf: list[str]


def main() -> None:
    """Run all faults, the clean sets and the named data; write the table."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERPIXEL_CACHE"] = str(Path(folder) / "cache")
        clean, quiet = {}, []
        for name, write in CLEAN.items():
            root = Path(folder) / name
            clean[name] = (root, write(root))
            quiet.append((f"clean `{name}`, its recipe", inspect_recipe(clean[name][1])[0]))
            quiet.append((f"clean `{name}`, bare folder", inspect_folder(root)[0]))
        outcomes = [_planted(fault, clean, Path(folder) / f"fault-{at}") for at, fault in enumerate(FAULTS)]
        quiet += [
            (f"`{Path(name).parent.name}/{Path(name).name}`", inspect_folder(Path(name))[0]) for name in sys.argv[1:]
        ]
    seconds = time.perf_counter() - start
    RESULT.write_text(_page(outcomes, quiet, seconds), encoding="utf-8")
    print(RESULT)


def _planted(fault: Fault, clean: dict[str, tuple[Path, Recipe]], root: Path) -> Outcome:
    source, recipe = clean[fault.base]
    recipe = copy_of(source, root, recipe)
    found = inspect_recipe(fault.plant(root, recipe) or recipe)[0].findings
    named = next((finding for finding in found if finding.rule == fault.rule), None)
    true = {fault.rule, *fault.may}
    return Outcome(fault, named, [item.rule for item in found if item.severity != "note" and item.rule not in true])


def _page(outcomes: list[Outcome], quiet: list[tuple[str, Inspection]], seconds: float) -> str:
    planted, met, wolf = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        planted[outcome.fault.rule] += 1
        met[outcome.fault.rule] += outcome.finding is not None
        wolf.update(outcome.wolf)
    alarms = {name: [item.rule for item in found.findings if item.severity != "note"] for name, found in quiet}
    for rules in alarms.values():
        wolf.update(rules)
    all_met, all_wolf = met.total(), wolf.total()
    lines = [
        "# Inspection: planted faults",
        "",
        "Written by `python benchmarks/inspection.py`. Every fault is planted into a copy of a small clean set, and",
        "looked for with all checks on. Of a rule, recall is the share of its planted faults that it names; precision",
        "the share of its errors and warnings that are true, over all inspections, those of the clean sets too.",
        "",
        f"{len(outcomes)} faults of {len(planted)} rules; {all_met} found, {all_wolf} false alarms: recall"
        f" {all_met / len(outcomes):.3f}, precision {all_met / max(1, all_met + all_wolf):.3f}; {seconds:.0f} s.",
        "",
        "| planted fault | set | rule | says | precision | recall |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in sorted(outcomes, key=lambda item: (item.fault.rule, item.fault.name)):
        rule, said = outcome.fault.rule, outcome.finding
        text = f"{said.severity}: {said.sentence}".replace("|", "/") if said else "**not found**"
        precision = f"{met[rule] / (met[rule] + wolf[rule]):.2f}" if met[rule] else "-"
        row = (outcome.fault.name, outcome.fault.base, f"`{rule}`", text, precision, f"{met[rule] / planted[rule]:.2f}")
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "## Sets without a planted fault", "", "| set | errors and warnings | notes |", "| --- | --- | --- |"]
    for name, found in quiet:
        notes = sorted({item.rule for item in found.findings if item.severity == "note"})
        lines.append(f"| {name} | {', '.join(alarms[name]) or 'none'} | {', '.join(notes) or 'none'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
