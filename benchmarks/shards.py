"""Data larger than their cache: is every sample read once an epoch, in flat memory and disk, also after a kill?

    OMP_NUM_THREADS=1 python benchmarks/shards.py --work DIR --out benchmarks/results/shards.md

Makes 200,000 pairs of 24x24 pixels as `perpixel shard` writes them, and reads these behind a URL (litdata's ``local:``)
through a cache of a hundredth of their size: an epoch by two processes with two workers each, which are killed
(SIGKILL) in the middle and continue; then the first steps of a training, killed and continued. Memory is the
proportional set size of a process with its workers, disk what lies in the cache folder, both looked at twice a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import perpixel
from perpixel.console import Console
from perpixel.data.samples import list_samples
from perpixel.data.shard_arrays import encode_array
from perpixel.data.shards import ShardRow, open_shards, write_index
from perpixel.recipe import Recipe, load_recipe
from perpixel.sharding.write import litdata_writer
from perpixel.tasks import build_task

COUNT = 200_000
SIDE = 24
CACHE_CHUNKS = 16
CHUNK_MB = 0.2
MEGABYTE = 1e6
RECIPE = {
    "name": "discs",
    "target": {
        "kind": "segmentation",
        "classes": [
            {"name": "ground", "values": [0], "color": [40, 40, 40]},
            {"name": "disc", "values": [1], "color": [250, 200, 40]},
        ],
    },
}
SETTINGS = (
    f"data.shard_cache={CACHE_CHUNKS}",
    "split.method=random",
    "split.validation=0.02",
    "model.encoder=mobilenetv3_small_050",
    "model.weights=none",
    "input.size=[32, 32]",
    "training.epochs=1",
    "training.batch_size=500",
    "training.workers=2",
    "training.precision=fp32",
    "training.threads=1",
    "training.checkpoint_seconds=10",
    "inference.batch_size=100",
)


def make_shards(folder: Path, count: int) -> None:
    """Bright discs on noise, a picture and a mask each, straight into shards: files would only be in the way."""
    rng = np.random.default_rng(0)
    rows_hw, columns_hw = np.mgrid[:SIDE, :SIDE]
    task = build_task(recipe_of(folder.parent, str(folder)))
    folder.mkdir()
    writer, rows = litdata_writer(folder, int(CHUNK_MB * MEGABYTE)), []
    for number in range(count):
        row, column, radius = *rng.uniform(4, 20, 2), rng.uniform(2, 9)
        mask_hw = ((rows_hw - row) ** 2 + (columns_hw - column) ** 2 < radius**2).astype(np.uint8)
        image_hwc = rng.integers(40, 140, (SIDE, SIDE, 3), dtype=np.uint8) + 60 * mask_hw[..., None]
        id_ = f"{number:06d}"
        writer[number] = (id_.encode(), encode_array(image_hwc), encode_array(mask_hw))
        rows.append(ShardRow(id_, None, task.stratum_value(mask_hw), {}))
    writer.done()
    writer.merge()
    looked = {"forced": False, "errors": [], "warnings": []}
    write_index(folder, rows, meaning=task.meaning, image_scale=None, notes={}, inspection=looked, source={})


def recipe_of(work: Path, root: str) -> Recipe:
    """The recipe of the benchmark."""
    return load_recipe(work / "recipe.yaml", [f"data.root={root}", *SETTINGS])


# ---------------------------------------------------------------- the processes that are watched


def read_epoch(work: Path, rank: int, world: int, first_batch: int, log: Path) -> None:
    """One of several processes that read an epoch as a training does; a line a batch in its log."""
    from perpixel.training.material import prepare
    from perpixel.training.processes import Place, Processes
    from perpixel.training.train import _loaders

    recipe = recipe_of(work, f"local:{work / 'shards'}")
    task = build_task(recipe)
    material = prepare(recipe, task, Console())
    loader = _loaders(recipe, task, material, Processes(Place(rank, world, rank, world, "")))(0, first_batch)
    with log.open("a") as file:
        for number, batch in enumerate(loader, first_batch):
            print(json.dumps([number, list(batch.ids)]), file=file, flush=True)


def train_epoch(work: Path, log: Path) -> None:
    """Train, or continue; a line a step in the log."""
    from perpixel.training.loop import TrainingModule

    after = TrainingModule.on_train_batch_end
    file = log.open("a")

    def on_train_batch_end(self: TrainingModule, outputs: Any, batch: Any, index: int) -> None:
        print(json.dumps([self.progress.batch - 1, list(batch.ids)]), file=file, flush=True)
        after(self, outputs, batch, index)

    TrainingModule.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    perpixel.train(
        recipe_of(work, f"local:{work / 'shards'}"), run=work / "run", resume=(work / "run").exists(), force=True
    )


# ---------------------------------------------------------------- watching


class Watch:
    """Memory of processes and size of the cache, twice a second."""

    def __init__(self, cache: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.disk: list[float] = []
        self._cache, self._processes, self._over = cache, processes, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        started = time.monotonic()
        while not self._over.wait(0.5):
            self.seconds.append(time.monotonic() - started)
            self.memory.append(sum(_memory(process.pid) for process in self._processes) / MEGABYTE)
            self.disk.append(_size(self._cache) / MEGABYTE)

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def quarters(self) -> list[float]:
        """The most memory in each quarter of the time, the first seconds (imports) left out."""
        kept = [memory for memory in self.memory if memory > 0][10:]
        return [max(part) for part in np.array_split(kept, 4) if len(part)]


def _memory(pid: int) -> int:
    """Bytes of a process and its children, what they share counted once."""
    total = 0
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total = 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        total += sum(_memory(int(child)) for child in children)
    except (OSError, StopIteration):
        pass
    return total


def _size(folder: Path) -> int:
    """Bytes of the chunks in the cache, those that arrive too."""
    total = 0
    for file in folder.rglob("*.bin*"):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def start(work: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """One of the processes above, in a group of its own."""
    command = [sys.executable, __file__, "--work", str(work), *arguments]
    errors = (work / "errors.txt").open("ab")
    environment = os.environ | {"PERPIXEL_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, start_new_session=True, env=environment, stdout=errors, stderr=errors)


def lines_of(log: Path) -> list[tuple[int, list[str]]]:
    """(batch, ids) of a log; the last line of a killed process may be cut."""
    found = []
    for line in log.read_text().splitlines() if log.is_file() else []:
        try:
            found.append(tuple(json.loads(line)))
        except ValueError:
            continue
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """A process and its workers, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(log: Path, batches: int, process: subprocess.Popen[bytes]) -> None:
    """Until a log has so many lines."""
    while process.poll() is None and len(lines_of(log)) < batches:
        time.sleep(0.5)


def once(ids: list[str], expected: set[str]) -> str:
    """Whether these ids are each of the expected ones once."""
    counts = Counter(ids)
    twice, never = sum(count > 1 for count in counts.values()), len(expected - set(counts))
    assert set(counts) <= expected
    good = not twice and not never
    return f"{len(ids):,} samples, {'each once' if good else f'{twice} more than once, {never} never'}"


# ---------------------------------------------------------------- the parts


def read_and_kill(work: Path, expected: set[str], batches: int) -> list[list[str]]:
    """Two processes of two workers each read an epoch, killed in the middle; each continues where all had come to."""
    logs = [work / f"read-{rank}.jsonl" for rank in range(2)]
    readers, watch, started = _readers(work, logs, 0)
    wait_for(logs[0], batches // 2, readers[0])
    for reader in readers:
        kill(reader)
    speed = sum(len(ids) for log in logs for _, ids in lines_of(log)) / (time.monotonic() - started)
    watch.end()
    had = min(len(lines_of(log)) for log in logs)
    before = [id_ for log in logs for number, ids in lines_of(log) if number < had for id_ in ids]
    what = "2 processes x 2 workers read an epoch"
    rows = [[f"{what}, killed after {had} of {batches} batches", "", *_figures(watch), f"{speed:,.0f}"]]
    logs = [work / f"continued-{rank}.jsonl" for rank in range(2)]
    readers, watch, started = _readers(work, logs, had)
    assert [reader.wait() for reader in readers] == [0, 0], "see errors.txt"
    seconds = time.monotonic() - started
    watch.end()
    after = [id_ for log in logs for _, ids in lines_of(log) for id_ in ids]
    figures = [once(before + after, expected), *_figures(watch), f"{len(after) / seconds:,.0f}"]
    return [*rows, ["they continue to its end", *figures]]


def _readers(work: Path, logs: list[Path], first: int) -> tuple[list[subprocess.Popen[bytes]], Watch, float]:
    readers = [start(work, "--read", f"{rank},2,{first}", "--log", str(log)) for rank, log in enumerate(logs)]
    return readers, Watch(work / "cache", readers), time.monotonic()


def train_and_kill(work: Path, expected: set[str], steps: int) -> list[list[str]]:
    """The first ``steps`` steps of a training, killed after a third of them and continued."""
    logs = [work / f"train-{part}.jsonl" for part in range(2)]
    rows: list[list[str]] = []
    for number, (log, until) in enumerate(zip(logs, (steps // 3, steps), strict=True)):
        process, begun = start(work, "--train", "--log", str(log)), time.monotonic()
        watch = Watch(work / "cache", [process])
        wait_for(log, until - (lines_of(logs[0])[-1][0] if number else 0), process)
        assert process.poll() is None, "see errors.txt"
        kill(process)
        seconds = time.monotonic() - begun
        watch.end()
        done = lines_of(log)
        what = (
            f"training, killed after {done[-1][0] + 1} steps"
            if not number
            else (f"continued from step {done[0][0]}, killed after {done[-1][0] + 1} steps")
        )
        rows.append([what, "", *_figures(watch), f"{sum(len(ids) for _, ids in done) / seconds:,.0f}"])
    begun_at = lines_of(logs[1])[0][0]
    taken = [id_ for number, ids in lines_of(logs[0]) if number < begun_at for id_ in ids]
    taken += [id_ for _, ids in lines_of(logs[1]) for id_ in ids]
    assert set(taken) <= expected
    twice = len(taken) - len(set(taken))
    rows[-1][1] = f"{len(taken):,} samples, {'none twice' if not twice else f'{twice} more than once'}"
    return rows


def _figures(watch: Watch) -> list[str]:
    return [" / ".join(f"{memory:,.0f}" for memory in watch.quarters()), f"{max(watch.disk):.2f}"]


def main() -> None:
    """Make, write, read, train; or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for data, cache and run, about 3 GB")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--steps", type=int, default=40, help="of the training that is begun and killed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    work: Path = asked.work.resolve()
    if asked.read:
        rank, world, first = map(int, asked.read.split(","))
        return read_epoch(work, rank, world, first, asked.log)
    if asked.train:
        return train_epoch(work, asked.log)
    return measure(work, asked.count, asked.steps, asked.out)


def measure(work: Path, count: int, steps: int, out: Path) -> None:
    """All parts, and the table."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.yaml").write_text(json.dumps(RECIPE))  # JSON is YAML
    if not (work / "shards" / "perpixel-shards.json").exists():
        started = time.monotonic()
        make_shards(work / "shards", count)
        print(f"made in {time.monotonic() - started:.0f} s", flush=True)
    opened = open_shards(work / "shards", CACHE_CHUNKS)
    assert opened is not None
    shards = opened[0]
    recipe = recipe_of(work, str(work / "shards"))
    samples = list_samples(recipe.data, work / "shards")
    from perpixel.data.split import make_split

    subsets, _ = make_split(samples, recipe.split, lambda sample: 0.0)
    expected = {id_ for id_, subset in subsets.items() if subset == "train"}
    batches = -(-len(expected) // recipe.training.images_a_step)
    loads = [os.getloadavg()[0]]
    rows: list[list[str]] = []
    for found in (read_and_kill(work, expected, batches), train_and_kill(work, expected, steps)):
        rows += found
        loads.append(os.getloadavg()[0])
        print(found, flush=True)
    total = sum(chunk.bytes for chunk in shards.chunks)
    largest = CACHE_CHUNKS * max(chunk.bytes for chunk in shards.chunks)
    lines = [
        "# Data a hundred times as large as their cache",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/shards.py --work DIR --out benchmarks/results/shards.md`",
        "",
        f"{len(shards):,} pairs of {SIDE}x{SIDE}: {len(shards.chunks):,} chunks, {total / MEGABYTE:.1f} MB,",
        f"behind a URL (`local:`); the cache may hold {CACHE_CHUNKS} chunks, {largest / MEGABYTE:.2f} MB at most,"
        f" {100 * largest / total:.2f} % of all.",
        f"{len(expected):,} training pairs, {recipe.training.images_a_step} a step; {os.cpu_count()} processors,",
        f"whose load was {min(loads):.0f} to {max(loads):.0f}:",
        "busy with other work, so the speeds say little.",
        "",
        "| what | samples | memory, MB: most in each quarter of the time | cache, MB at most | samples/s |",
        "| --- | --- | --- | --- | --- |",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "Memory is that of all processes and their workers together (what they share counted once), imports and",
        "the table of all samples. Speeds include starting Python and listing the samples. Of a killed training,",
        "the steps after its last checkpoint are taken again, and counted once.",
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
