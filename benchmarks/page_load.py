"""Many visitors at once: how long they wait for a prediction, and whether the server's memory stays bounded.

    perpixel serve --runs runs --port 7860 &
    python benchmarks/page_load.py http://127.0.0.1:7860 --run NAME --image FILE --users 20 --seconds 120 --pid $!

Each visitor sends an image, waits for the answer, and sends it again. A 429 is no error: it says when to come again,
and the visitor does. Prints a line of JSON; exit status 1 when anything but 200 and 429 came back.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from pathlib import Path

import httpx


def memory_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} tells no memory")


def visit(address: str, run: str, content: bytes, until: float, seconds: list[float], codes: list[int]) -> None:
    """Predict again and again until the clock says so."""
    with httpx.Client(timeout=120) as client:
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                answer = client.post(
                    f"{address}/api/predict",
                    data={"run": run, "format": "png"},
                    files={"image": ("image.png", content)},
                )
            except httpx.HTTPError:  # no answer at all
                codes.append(0)
                continue
            codes.append(answer.status_code)
            if answer.status_code == 429:
                time.sleep(float(answer.headers["retry-after"]))
            else:
                seconds.append(time.monotonic() - began)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("address")
    parser.add_argument("--run", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pid", type=int, help="of the server, to watch its memory")
    options = parser.parse_args()
    content = options.image.read_bytes()
    visit(options.address, options.run, content, time.monotonic() + 3, [], [])  # loads and warms the model
    memory = [memory_mb(options.pid)] if options.pid else []
    seconds: list[float] = []
    codes: list[int] = []
    until = time.monotonic() + options.seconds
    arguments = (options.address, options.run, content, until, seconds, codes)
    visitors = [threading.Thread(target=visit, args=arguments) for _ in range(options.users)]
    for visitor in visitors:
        visitor.start()
    while any(visitor.is_alive() for visitor in visitors):
        time.sleep(1)
        if options.pid:
            memory.append(memory_mb(options.pid))
    print(json.dumps(summary(seconds, codes, memory, options.seconds)))
    sys.exit(any(code not in (200, 429) for code in codes))


def summary(seconds: list[float], codes: list[int], memory: list[float], duration: float) -> dict[str, object]:
    """What was measured; seconds are those of answered requests, 429 not counted."""
    ordered = sorted(seconds)
    result: dict[str, object] = {
        "answered": len(seconds),
        "asked_to_wait": codes.count(429),
        "errors": sum(code not in (200, 429) for code in codes),
        "per_second": round(len(seconds) / duration, 2),
        "median_s": round(statistics.median(ordered), 3) if ordered else None,
        "p95_s": round(ordered[int(0.95 * (len(ordered) - 1))], 3) if ordered else None,
    }
    if memory:
        result |= {"memory_mb_warm": round(memory[0]), "memory_mb_most": round(max(memory))}
        result["memory_mb_end"] = round(memory[-1])
    return result


if __name__ == "__main__":
    main()
