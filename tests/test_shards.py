"""Pairs in shards train as files do: every sample once an epoch, in one order for all, exactly continued, bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import perpixel
from perpixel.console import Console
from perpixel.data import shard_cache
from perpixel.data.cache import decode_samples
from perpixel.data.dataset import EpochOrder, windowed_order
from perpixel.data.samples import Sample, data_root, list_samples
from perpixel.data.shard_arrays import decode_array, encode_array, encode_image
from perpixel.data.shard_cache import ChunkCache, as_url, mirrored
from perpixel.data.shards import INDEX, TABLE
from perpixel.errors import DataError, RequestError
from perpixel.images import read_image, write_image
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.sharding.tars import pairs_in_tars
from perpixel.tasks import build_task
from perpixel.training.material import prepare
from perpixel.training.processes import Place, Processes
from perpixel.training.train import _loaders, train
from tiny import assert_same_weights, tiny_recipe, write_tiny

RANKS = str(Path(__file__).with_name("ranks.py"))
SPLIT = ("split.method=random", "split.order_column=null", "split.validation=0.25")
MB = 0.01  # a chunk holds one to three of these pairs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("files"), 40)


@pytest.fixture(scope="module")
def shards(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "shards"
    return perpixel.shard("salt", folder, data=files, overrides=SPLIT, size_mb=MB)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test has a cache of its own, and no URL was looked at before."""
    monkeypatch.setenv("PERPIXEL_CACHE", str(tmp_path / "cache"))
    mirrored.cache_clear()
    yield
    mirrored.cache_clear()


def far(shards: Path, *settings: str) -> Recipe:
    """A recipe of the same shards behind a URL, of which eight chunks may lie here."""
    return tiny_recipe(Path(f"local:{shards}"), *SPLIT, "data.shard_cache=8", *settings)


def copied(shards: Path, to: Path) -> Path:
    to.mkdir()
    for file in shards.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def first_batches(recipe: Recipe, rank: int = 0, world: int = 1, epoch: int = 1) -> list[Any]:
    task = build_task(recipe)
    processes = Processes(Place(rank, world, rank, world, ""))
    material = prepare(recipe, task, Console())
    return list(_loaders(recipe, task, material, processes)(epoch, 0))


# ---------------------------------------------------------------- what they hold


def test_shards_hold_what_the_files_hold_and_litdata_reads_them(files: Path, shards: Path) -> None:
    recipe = tiny_recipe(files, *SPLIT)
    task = build_task(recipe)
    of_files = list_samples(recipe.data, files)
    of_shards = list_samples(recipe.data, shards)
    assert [sample.id for sample in of_shards] != sorted(sample.id for sample in of_shards), "shuffled when written"
    by_id = {sample.id: (place, sample) for place, sample in enumerate(of_shards)}
    plain = decode_samples(of_files, task.decode_target, key=None)
    stored = decode_samples(of_shards, task.decode_target, key=None)
    for place, sample in enumerate(of_files):
        there, twin = by_id[sample.id]
        assert twin.attributes == sample.attributes
        assert twin.stored is not None
        assert twin.stored.stratum == task.stratum_value(plain.target(place))
        for ours, theirs in ((stored.image, plain.image), (stored.target, plain.target)):
            assert ours(there).dtype == theirs(place).dtype
            np.testing.assert_array_equal(ours(there), theirs(place))
    assert json.loads((shards / "index.json").read_text())["config"]["data_format"] == ["bytes"] * 3

    from litdata import StreamingDataset

    first = json.loads((shards / "index.json").read_text())["chunks"][0]["chunk_size"]  # the second chunk's first
    twin = of_shards[first]
    assert twin.stored is not None
    leaves = StreamingDataset(str(shards))[first]
    assert bytes(leaves[0]).decode() == twin.id
    assert bytes(leaves[1]) == twin.stored.shards.read(first, "image")
    assert bytes(leaves[2]) == twin.stored.shards.read(first, "target")


@given(
    shape=st.sampled_from([(1, 1), (5, 7), (4, 6, 3), (3, 5, 1), (2, 2, 4), (0, 3)]),
    dtype=st.sampled_from(["u1", "u2", "f4", "i8", "?"]),
    seed=st.integers(0, 9),
)
def test_any_array_comes_back(shape: tuple[int, ...], dtype: str, seed: int) -> None:
    array = (np.random.default_rng(seed).random(shape) * 70000).astype(np.int64).astype(dtype)
    if dtype == "f4" and array.size:
        array.flat[0] = np.nan
    back = decode_array(encode_array(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


def test_a_photograph_stays_the_jpeg_that_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_image(tmp_path / "a.jpg", rng.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    pixels_hwc = read_image(tmp_path / "a.jpg").pixels_hwc
    assert encode_image(pixels_hwc, tmp_path / "a.jpg") == (tmp_path / "a.jpg").read_bytes()
    np.testing.assert_array_equal(decode_array(encode_image(pixels_hwc, tmp_path / "a.jpg")), pixels_hwc)
    turned = Image.fromarray(pixels_hwc)
    exif = turned.getexif()
    exif[0x0112] = 6  # lies on its side: its own bytes would not decode to what a person sees
    turned.save(tmp_path / "b.jpg", exif=exif)
    upright_hwc = read_image(tmp_path / "b.jpg").pixels_hwc
    assert upright_hwc.shape == (30, 40, 3)
    np.testing.assert_array_equal(decode_array(encode_image(upright_hwc, tmp_path / "b.jpg")), upright_hwc)
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_array(b"nothing")


# ---------------------------------------------------------------- the order


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40), window=st.integers(1, 10), seed=st.integers(0, 99))
def test_an_epoch_needs_few_chunks_at_a_time(sizes: list[int], window: int, seed: int) -> None:
    chunk_n = np.repeat(np.arange(len(sizes)), sizes)
    order = windowed_order(chunk_n, window, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(chunk_n)))
    cache: list[int] = []
    fetched = 0
    for chunk in chunk_n[order]:
        if chunk not in cache:
            cache, fetched = [*cache, int(chunk)][-2 * window :], fetched + 1
    assert fetched == len(sizes), "each chunk comes once"


@given(count=st.integers(1, 90), size=st.integers(1, 30), world=st.integers(1, 4), seed=st.integers(0, 9))
def test_processes_share_the_batches_of_one(count: int, size: int, world: int, seed: int) -> None:
    chunks = (np.arange(count) // 7, 3)
    whole = list(EpochOrder(count, size, seed=seed, epoch=2, chunks=chunks))
    assert sorted(chain(*whole)) == list(range(count))
    dealt = [list(EpochOrder(count, size, seed=seed, epoch=2, share=(r, world), chunks=chunks)) for r in range(world)]
    assert [list(chain(*parts)) for parts in zip(*dealt, strict=True)] == whole
    later = list(EpochOrder(count, size, seed=seed, epoch=2, first_batch=len(whole) // 2, chunks=chunks))
    assert later == whole[len(whole) // 2 :]
    if count > 40:
        assert whole != list(EpochOrder(count, size, seed=seed, epoch=3, chunks=chunks))


def test_ranks_and_workers_see_one_order_and_one_cache(shards: Path, tmp_path: Path) -> None:
    one = first_batches(far(shards))
    train_ids = [id_ for batch in one for id_ in batch.ids]
    assert len(train_ids) == len(set(train_ids)) == 30
    for near, whole in zip(first_batches(tiny_recipe(shards, *SPLIT, "data.shard_cache=8")), one, strict=True):
        assert near.ids == whole.ids
        np.testing.assert_array_equal(near.image_bchw, whole.image_bchw)
    two = [first_batches(far(shards, "training.workers=2"), rank, 2) for rank in range(2)]
    for whole, *parts in zip(one, *two, strict=True):
        assert sum((part.ids for part in parts), ()) == whole.ids
        together = np.concatenate([part.image_bchw.numpy() for part in parts])
        np.testing.assert_array_equal(together, whole.image_bchw.numpy())
        np.testing.assert_array_equal(np.concatenate([part.target_bhw for part in parts]), whole.target_bhw)
    (folder,) = (tmp_path / "cache").glob("shards-*")
    assert len(list(folder.glob("chunk-*.bin"))) <= 8


# ---------------------------------------------------------------- training


def test_killed_far_from_its_shards_it_continues_to_the_same_weights(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("training.checkpoint_seconds=1e-6", "training.epochs=1")
    fetched: list[str] = []
    fetch = shard_cache._fetch

    def counted(url: str, name: str, folder: Path) -> Path:
        path = fetch(url, name, folder)
        files = [*folder.glob("chunk-*.bin"), *folder.glob("arriving/chunk-*.bin")]
        assert len(files) <= 8, "the bound holds at every moment"
        fetched.append(name)
        return path

    monkeypatch.setattr(shard_cache, "_fetch", counted)
    whole = train(far(shards, *settings), tmp_path / "whole")
    assert len(fetched) > 2 * len(list(shards.glob("chunk-*.bin"))), "nothing more than eight chunks was kept"
    assert whole.recipe.data.root == f"local:{shards}"

    Run(tmp_path / "asked").write_recipe(far(shards, *settings))
    command = [sys.executable, RANKS, "train", str(tmp_path / "asked" / "recipe.yaml"), "--run", str(tmp_path / "run")]
    killed = subprocess.run(command, env=os.environ | {"PERPIXEL_TEST": "strike shards 0 55"}, capture_output=True)
    assert killed.returncode == -9
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file(), "killed after its first steps"
    again = train(far(shards, *settings), tmp_path / "run", resume=True)
    assert_same_weights(whole.best_path, again.best_path)
    stored = json.loads((again.evaluation_dir("val") / "metrics.json").read_text())
    evaluated = perpixel.evaluate(again.path, data=shards)
    assert evaluated["protocol"]["images"] == 10
    assert evaluated["figures"] == pytest.approx(stored["figures"], abs=1e-12)


def test_a_stratified_split_and_a_frozen_encoder_read_no_more_than_they_need(
    shards: Path, files: Path, tmp_path: Path
) -> None:
    stratified = ("split.method=stratified", "split.order_column=null", "split.validation=0.25")
    frozen = ("model.freeze_encoder=true", "training.epochs=9", "augmentation.affine=0", "augmentation.photometric=0")
    recipe = far(shards, *stratified)
    material = prepare(recipe, build_task(recipe), Console())
    plain = tiny_recipe(files, *stratified)
    assert prepare(plain, build_task(plain), Console()).subsets == material.subsets
    assert material.chunks("train") is not None
    from perpixel.training.feature_cache import _reason_against

    recipe = far(shards, *frozen)
    model = SimpleNamespace(can_split=True)
    reasons = [
        _reason_against(recipe, build_task(recipe), model, 2, sharded=sharded)  # type: ignore[arg-type]
        for sharded in (False, True)
    ]
    assert reasons == [None, "the data are shards"]


# ---------------------------------------------------------------- what is wrong is told


@pytest.mark.parametrize("place", ["here", "far"])
def test_a_damaged_or_missing_chunk_is_told_with_its_file(shards: Path, tmp_path: Path, place: str) -> None:
    copy = copied(shards, tmp_path / "copy")
    recipe = tiny_recipe(copy if place == "here" else Path(f"local:{copy}"), *SPLIT)
    task = build_task(recipe)
    damaged, missing = copy / "chunk-0-0.bin", copy / "chunk-0-3.bin"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    samples = list_samples(recipe.data, data_root(recipe.data))
    decoded = decode_samples(samples, task.decode_target, key=None)
    with pytest.raises(DataError, match=r"chunk-0-0.bin: this chunk is damaged") as told:
        decoded.image(0)
    assert "perpixel shard" in (told.value.cure or "")
    lost = next(n for n, sample in enumerate(samples) if sample.stored and sample.stored.shards.chunk_of(n) == 3)
    with pytest.raises(DataError, match=r"chunk-0-3.bin: this (chunk is missing|file .* cannot be fetched)"):
        decoded.target(lost)
    decoded.image(len(samples) - 1)


def test_shards_that_are_not_to_be_trusted_are_refused(shards: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(shards, *SPLIT)
    copy = copied(shards, tmp_path / "copy")
    index = json.loads((copy / "index.json").read_text())
    index["config"]["data_format"][1] = "pickle"
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="bytes, pickle, bytes"):
        list_samples(recipe.data, copy)
    (copy / "index.json").write_bytes((shards / "index.json").read_bytes())
    stored = json.loads((copy / INDEX).read_text())
    stored["chunks"][0][0] = "../chunk-0-0.bin"
    (copy / INDEX).write_text(json.dumps(stored))
    with pytest.raises(DataError, match="does not agree with itself"):
        list_samples(recipe.data, copy)
    (copy / INDEX).write_bytes((shards / INDEX).read_bytes())
    (copy / TABLE).write_text((shards / TABLE).read_text().rpartition("\n0")[0])
    with pytest.raises(DataError, match="does not agree with itself"):
        list_samples(recipe.data, copy)
    (copy / INDEX).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        list_samples(recipe.data, copy)
    (copy / INDEX).unlink()
    with pytest.raises(DataError, match="do not say what their samples are"):
        list_samples(recipe.data, copy)
    with pytest.raises(DataError, match=r"nowhere/perpixel-shards.json: this file of the shards cannot be fetched"):
        data_root(tiny_recipe(Path("local:/nowhere")).data)


def test_what_shards_cannot_do_is_said(shards: Path, files: Path, tmp_path: Path) -> None:
    other = tiny_recipe(
        shards,
        *SPLIT,
        "target.classes=[{name: salt, values: [65535], color: [1, 2, 3]}, {name: rock, values: [0], color: [4, 5, 6]}]",
    )
    with pytest.raises(DataError, match="their values mean something else") as told:
        prepare(other, build_task(other), Console())
    assert "perpixel shard" in (told.value.cure or "")
    with pytest.raises(RequestError, match="the files that the rules of an inspection are about") as refused:
        perpixel.inspect("salt", data=shards)
    assert str(files) in (refused.value.cure or "")
    with pytest.raises(RequestError, match="are about"):
        perpixel.inspect(shards)
    also = tmp_path / "also.yaml"
    Run(tmp_path / "r").write_recipe(tiny_recipe(files, *SPLIT))
    also.write_bytes((tmp_path / "r" / "recipe.yaml").read_bytes())
    joined = tiny_recipe(shards, *SPLIT, f"data.also=[{also}]")
    with pytest.raises(RequestError, match="joins files alone"):
        prepare(joined, build_task(joined), Console())
    with pytest.raises(RequestError, match="shards already"):
        perpixel.shard("salt", tmp_path / "out", data=shards)
    with pytest.raises(RequestError, match="not an empty folder"):
        perpixel.shard("salt", shards, data=files)
    with pytest.raises(RequestError, match="--to is 'zip'"):
        perpixel.shard("salt", tmp_path / "out", data=files, to="zip")
    with pytest.raises(RequestError, match="--size-mb is 4000"):
        perpixel.shard("salt", tmp_path / "out", data=files, size_mb=4000)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_files_is_told_before_there_are_shards(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "files", 8)
    masks = sorted((root / "train" / "masks").iterdir())
    for mask in masks[:2]:
        write_image(mask, np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="not fit for training"):
        perpixel.shard("salt", tmp_path / "out", data=root)
    with pytest.raises(DataError, match="2 of 8 samples cannot be used"):
        perpixel.shard("salt", tmp_path / "out", data=root, force=True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["files"]


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/a b/c", "s3://bucket/a b/c"),
        (Path("s3://bucket/c/"), "s3://bucket/c"),
        (Path("local:/tmp/x"), "local:/tmp/x"),
        ("hf://datasets/a/b", "hf://datasets/a/b"),
        ("/data/s3:/x", None),
        ("data", None),
        ("https://example.org/x", None),
    ],
)
def test_a_url_survives_being_a_path(place: str | Path, url: str | None) -> None:
    assert as_url(place) == url


def test_other_shards_under_a_url_replace_what_was_kept_of_it(shards: Path, tmp_path: Path) -> None:
    copy = copied(shards, tmp_path / "copy")
    recipe = tiny_recipe(Path(f"local:{copy}"))

    def first() -> Sample:
        mirrored.cache_clear()
        return list_samples(recipe.data, data_root(recipe.data))[0]

    before = first()
    assert before.stored is not None
    before.stored.shards.read(0, "image")
    cache = before.stored.shards.cache
    assert isinstance(cache, ChunkCache)
    assert list(cache.folder.glob("chunk-*"))
    (cache.folder / "arriving").mkdir(exist_ok=True)
    (cache.folder / "arriving" / "chunk-0-1.bin.tmp").write_bytes(b"half")
    first()
    assert list(cache.folder.glob("chunk-*")), "the same shards: what is here stays"
    assert not list(cache.folder.glob("arriving/*tmp"))
    stored = json.loads((copy / INDEX).read_text())
    stored["source"] = {"other": True}
    (copy / INDEX).write_text(json.dumps(stored))
    first()
    assert not list(cache.folder.glob("chunk-*"))


# ---------------------------------------------------------------- tars


def test_tars_hold_the_files_and_become_the_same_shards(files: Path, shards: Path, tmp_path: Path) -> None:
    tars = perpixel.shard("salt", tmp_path / "tars", data=files, overrides=SPLIT, size_mb=0.05, to="webdataset")
    assert len(list(tars.glob("*.tar"))) > 1
    samples = {sample.id: sample for sample in list_samples(tiny_recipe(files).data, files)}
    with tarfile.open(tars / "shard-000000.tar") as tar:
        names = tar.getnames()
        told = json.loads(tar.extractfile(names[2]).read())  # type: ignore[union-attr]
        assert names[:3] == ["000000000.png", "000000000.target.png", "000000000.json"]
        image = tar.extractfile(names[0])
        assert image is not None
        assert image.read() == samples[told["id"]].image.read_bytes()
    again = perpixel.shard("salt", tmp_path / "again", data=tars, overrides=SPLIT, size_mb=MB)
    assert (again / TABLE).read_bytes() == (shards / TABLE).read_bytes()
    for chunk in shards.glob("chunk-*.bin"):
        assert (again / chunk.name).read_bytes() == chunk.read_bytes()
    with pytest.raises(RequestError, match="tars already"):
        perpixel.shard("salt", tmp_path / "out", data=tars, to="webdataset")


def test_a_tar_is_read_under_our_own_names(files: Path, tmp_path: Path) -> None:
    image = next((files / "train" / "images").iterdir())
    tar_file = tmp_path / "far" / "a.tar"
    tar_file.parent.mkdir()

    def write(*names: str) -> Path:
        with tarfile.open(tar_file, "w") as tar:
            for name in names:
                tar.add(image, name)
        return tar_file

    ((sample,),) = pairs_in_tars([write("../../a.PNG", "../../a.target.png")], 2)
    assert sample.id == "../../a"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name != "cache") == ["a.tar", "far"]
    for names in (["a.png"], ["a.png", "a.jpg", "a.target.png"], ["a.png", "b.target.png"], ["a.png", "a.mask.png"]):
        with pytest.raises(DataError, match=r"a.tar: sample .* is no pair"):
            list(pairs_in_tars([write(*names)], 2))
    whole = write("a.png", "a.target.png").read_bytes()
    tar_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged or cut short"):
        list(pairs_in_tars([tar_file], 2))
    with tarfile.open(tar_file, "w") as tar:
        tar.add(image, "a.png")
        tar.add(image, "a.target.png")
        (tmp_path / "no.json").write_text("[]")
        tar.add(tmp_path / "no.json", "a.json")
    with pytest.raises(DataError, match="no JSON of a sample"):
        list(pairs_in_tars([tar_file], 2))


def test_without_litdata_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perpixel.data import shard_cache

    shard_cache._downloader.cache_clear()
    monkeypatch.setitem(sys.modules, "litdata.streaming.downloader", None)
    with pytest.raises(RequestError, match="not installed") as raised:
        mirrored(f"local:{tmp_path}", tmp_path / "caches")
    assert str(raised.value).count("Cure") == 1
