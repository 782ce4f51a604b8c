"""Images a second of the generators, by one process and by as many as there are cores.

    python benchmarks/generators.py [--out benchmarks/results/generators.md]

Each is called as a user calls it, for some images and for three times as many; the difference is what images take, and
what is left is the start: imports, the first scene, the compiler of the renderer. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

# Name, arguments of `perpixel synthesize`, images.
GENERATORS = (
    ("salt, 101x101", ["salt"], 40),
    ("night, 512x320 from photographs", ["night"], 8),
    ("objects, 256x256", ["objects", "--captures", "5"], 10),
    ("desert, 256x256", ["desert", "--size", "256x256"], 6),
    ("desert, 960x540", ["desert", "--size", "960x540"], 4),
)


def seconds(arguments: list[str], count: int, processes: int) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    several = [] if arguments[0] == "salt" else ["--processes", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "perpixel", "synthesize", *arguments, "--out", f"{folder}/data"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*command, "--count", str(count), *several], env=environment, check=True, capture_output=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(name: str, arguments: list[str], count: int, processes: int) -> str:
    """A line of the table."""
    few, many = seconds(arguments, count, processes), seconds(arguments, 3 * count, processes)
    wall, processor = ((many[kind] - few[kind]) / (2 * count) for kind in (0, 1))
    start = max(0.0, few[0] - count * wall)
    return f"| {name} | {processes} | {1 / wall:.2f} | {wall:.2f} | {processor:.2f} | {start:.1f} |"


def main() -> None:
    """Measure and write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "generators.md")
    asked = parser.parse_args()
    from perpixel.inference.timing import processor_name

    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Images a second of the generators",
        "",
        f"Written by `python benchmarks/generators.py` on {time.strftime('%Y-%m-%d')}: {processor_name()}, {cores}"
        f" cores, no GPU, Python {platform.python_version()}, mitsuba {metadata.version('mitsuba')}. Rendered with 16"
        " rays a pixel; every image with all that lies beside it: classes, depth, normals.",
        "",
        "| what | processes | images a second | seconds an image | processor seconds an image | start, s |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, arguments, count in GENERATORS:
        for processes in [1] if arguments[0] == "salt" else sorted({1, cores}):
            lines.append(row(name, arguments, count, processes))
            print(lines[-1], flush=True)
    lines += ["", f"Load average of the last five minutes at the end: {os.getloadavg()[1]:.2f}.", ""]
    asked.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
