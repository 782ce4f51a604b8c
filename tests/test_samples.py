"""From folders and tables to samples: nothing is guessed, and nothing depends on the order of a directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perpixel.data.samples import Sample, data_root, list_samples, list_unlabelled
from perpixel.errors import DataError
from perpixel.recipe import DataSection


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def section(**keys: Any) -> DataSection:
    return DataSection(**keys)


def pairs(root: Path, *ids: str) -> Path:
    return touch(root, *(f"train/{kind}/{id_}.png" for id_ in ids for kind in ("images", "masks")))


def error_of(data: DataSection, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_samples(data, root)
    return caught.value.text()


# Templates


def test_pairs_from_folders_are_sorted_by_id(tmp_path: Path) -> None:
    pairs(tmp_path, "b", "a", "c10", "c9")
    touch(tmp_path, "train/images/notes.txt", "train/masks/unpaired.png", "train/images/deeper/x.png")
    assert list_samples(section(), tmp_path) == [
        Sample(id_, tmp_path / f"train/images/{id_}.png", tmp_path / f"train/masks/{id_}.png")
        for id_ in ("a", "b", "c10", "c9")
    ]


def test_the_order_of_the_directory_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs(tmp_path, *"dacb")
    before = list_samples(section(), tmp_path)
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: sorted(glob(self, pattern), reverse=True))
    assert list_samples(section(), tmp_path) == before
    assert [sample.id for sample in before] == list("abcd")


def test_subset_folders_name_the_subset_and_keep_equal_names_apart(tmp_path: Path) -> None:
    data = section(images="{subset}/in/{id}.jpg", targets="{subset}/out/{id}_gt.png")
    touch(tmp_path, *(f"{subset}/{rest}" for subset in ("val", "train") for rest in ("in/a.jpg", "out/a_gt.png")))
    samples = list_samples(data, tmp_path)
    assert [(sample.id, sample.subset) for sample in samples] == [("train/a", "train"), ("val/a", "val")]
    assert [sample.target for sample in samples] == [tmp_path / "train/out/a_gt.png", tmp_path / "val/out/a_gt.png"]


def test_nested_folders_and_a_subset_that_stands_twice(tmp_path: Path) -> None:
    data = section(images="x/y/{subset}/{subset}_{id}.png", targets="z/{id}/{subset}.png")
    touch(tmp_path, "x/y/train/train_1.png", "x/y/train/val_2.png", "z/1/train.png")
    assert [sample.id for sample in list_samples(data, tmp_path)] == ["train/1"]


@pytest.mark.parametrize(
    "id_",
    ["a b", "a.b.c", "[a]", "a+b(c)", "*", "a?", "ä-日本", "{subset}", "(?P<id>)", "a\\d", "$", "a\nb", "'\"", "id"],
)
def test_ids_with_odd_characters(id_: str, tmp_path: Path) -> None:
    pairs(tmp_path, id_, "other")
    samples = {sample.id: sample for sample in list_samples(section(), tmp_path)}
    assert samples.keys() == {id_, "other"}
    assert samples[id_].target == tmp_path / "train" / "masks" / f"{id_}.png"


def test_a_template_is_text_and_no_pattern(tmp_path: Path) -> None:
    data = section(images="[raw] (1)/*/{id}.v1.png", targets="[m]/{id}.png")
    touch(tmp_path, "[raw] (1)/*/a.v1.png", "[raw] (1)/x/b.v1.png", "[raw] (1)/*/c-v1.png", "[m]/a.png")
    assert [sample.id for sample in list_samples(data, tmp_path)] == ["a"]


def test_hidden_files_and_folders_are_no_samples(tmp_path: Path) -> None:
    data = section(images="{subset}/{id}.png", targets="masks/{subset}/{id}.png")
    touch(tmp_path, "train/a.png", "train/.b.png", "train/._a.png", ".train-x1/a.png", "masks/train/a.png")
    assert [sample.id for sample in list_samples(data, tmp_path)] == ["train/a"]


def test_a_folder_with_the_name_of_an_image_is_no_image(tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    (tmp_path / "train/images/b.png").mkdir()
    assert [sample.id for sample in list_samples(section(), tmp_path)] == ["a"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        pairs(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert [sample.id for sample in list_samples(section(), tmp_path)] == [name]


def test_missing_targets_are_named_and_counted(tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    touch(tmp_path, *(f"train/images/m{number:02d}.png" for number in range(11)))
    (tmp_path / "train/masks/m00.png").mkdir()
    text = error_of(section(), tmp_path)
    assert "11 of 12 images have no target" in text and "and 3 more" in text
    assert f"{tmp_path}/train/images/m07.png -> {tmp_path}/train/masks/m07.png is missing" in text
    assert "m08" not in text and "never read as an empty one" in text


def test_two_images_of_one_id(tmp_path: Path) -> None:
    data = section(images="{subset}/{id}.png", targets="t/masks/{id}.png", unlabelled="{subset}/{id}.png")
    touch(tmp_path, "train/a.png", "val/a.png", "t/masks/a.png")
    assert len(list_samples(data, tmp_path)) == 2, "in templates the subset is part of the id"
    with pytest.raises(DataError, match="an id names two images"):
        list_unlabelled(data, tmp_path)


def test_no_image_says_what_the_folder_holds(tmp_path: Path) -> None:
    assert "the folder holds: nothing" in error_of(section(), tmp_path)
    touch(tmp_path, "training/images/a.png", "read.me")
    text = error_of(section(), tmp_path)
    assert "no image matches 'train/images/{id}.png'" in text
    assert "the folder holds: read.me, training/" in text and "data.images" in text


def test_unlabelled_images(tmp_path: Path) -> None:
    touch(tmp_path, "test/images/b.png", "test/images/a.png")
    samples = list_unlabelled(section(unlabelled="test/images/{id}.png"), tmp_path)
    assert [(sample.id, sample.target) for sample in samples] == [("a", None), ("b", None)]
    with pytest.raises(DataError, match="no image matches"):
        list_unlabelled(section(unlabelled="elsewhere/{id}.png"), tmp_path)
    with pytest.raises(DataError, match="names no unlabelled images"):
        list_unlabelled(section(), tmp_path)


def test_unlabelled_images_that_data_images_finds_too_are_no_pairs(tmp_path: Path) -> None:
    data = section(
        images="{subset}/images/{id}.png", targets="{subset}/depths/{id}.png", unlabelled="testing/images/{id}.png"
    )
    touch(tmp_path, "training/images/a.png", "training/depths/a.png", "testing/images/b.png")
    assert [sample.id for sample in list_samples(data, tmp_path)] == ["training/a"]
    assert [sample.id for sample in list_unlabelled(data, tmp_path)] == ["b"]
    touch(tmp_path, "training/images/c.png")
    assert "1 of 2 images have no target" in error_of(data, tmp_path)


# The data folder


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "salt").mkdir()
    assert data_root(section(root=str(tmp_path))) == tmp_path
    assert data_root(section(root="/nowhere"), override=tmp_path) == tmp_path
    assert data_root(section(root="~/salt")) == tmp_path / "salt"
    with pytest.raises(DataError, match="names no data folder"):
        data_root(section())
    with pytest.raises(DataError, match="/nowhere: this data folder does not exist"):
        data_root(section(root="/nowhere"))


# Tables


def table(root: Path, text: str | bytes, name: str = "pairs.csv") -> Path:
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_pairs_from_a_csv(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "deep/a.tif", "t/1.png", "t/2.png")
    table(tmp_path, "image,target,subset,site,z\nb.png,t/1.png,val,NA,007\ndeep/a.tif,t/2.png,train,south,\n")
    samples = list_samples(section(pairs_csv="pairs.csv"), tmp_path)
    assert samples == [
        Sample("b", tmp_path / "b.png", tmp_path / "t/1.png", "val", {"site": "NA", "z": "007"}),
        Sample("deep/a", tmp_path / "deep/a.tif", tmp_path / "t/2.png", "train", {"site": "south", "z": ""}),
    ]


def test_a_csv_may_name_the_ids(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "t.png")
    table(tmp_path, "id,image,target\n0010,a.png,t.png\n0002,b.png,t.png\n")
    assert [sample.id for sample in list_samples(section(pairs_csv="pairs.csv"), tmp_path)] == ["0002", "0010"]


def test_a_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    touch(tmp_path, "a,1.png", "t.png")
    table(tmp_path, b'\xef\xbb\xbfimage, target\r\n"a,1.png",t.png\r\n\r\n')
    assert [sample.id for sample in list_samples(section(pairs_csv="pairs.csv"), tmp_path)] == ["a,1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,target\na.png,\n", "1 of 1 images have no target"),
        ("image,target\na.png,gone.png\n", "gone.png is missing"),
        ("image,target\ngone.png,t.png\nworse.png,t.png\n", "2 images of this table do not exist"),
        ("image,target\n,t.png\n", "1 images of this table do not exist"),
        ("image,target\na.png,t.png\na.png,t.png\n", "an id names two images"),
        ("image,mask\na.png,t.png\n", "column target is missing"),
        ("image;target\na.png;t.png\n", "columns are: image;target"),
        ("image,target\n", "this table has no rows"),
        ("", "not a readable CSV table"),
        # More values than columns: pandas would take the first for an index, and every value for its neighbour.
        ("image,target\nx,a.png,t.png\n", "line 2 has 3"),
        ("image,target\na.png,t.png\na.png\n", "line 3 has 1"),
        ("image,image\na.png,t.png\n", "each once"),
        (b"image,target\n\xff\xfe,t.png\n", "not a readable CSV table"),
        ('image,target\n"a.png,t.png\n', "not a readable CSV table"),
    ],
)
def test_a_csv_that_is_wrong(text: str | bytes, says: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "t.png")
    table(tmp_path, text)
    assert says in error_of(section(pairs_csv="pairs.csv"), tmp_path)


def test_tables_are_joined_by_id(tmp_path: Path) -> None:
    pairs(tmp_path, "a", "b")
    table(tmp_path, "id,z\nb,05\na,1e3\nunknown,3\n", "depths.csv")
    table(tmp_path, "site,id\nnorth,a\n", "sites.csv")
    a, b = list_samples(section(tables=("depths.csv", "sites.csv")), tmp_path)
    assert a.attributes == {"z": "1e3", "site": "north"}
    assert b.attributes == {"z": "05"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,z\na,1\n", "columns are: name, z"),
        ("id,z\na,1\nb,2\na,3\n", "an id stands twice in this table\n  - a"),
        ("id,z\nA,1\n", "the table's first id is 'A', the first image's is 'a'"),
        ("id,z\n", "no id of this table is the id of an image"),
        (None, "this table does not exist"),
    ],
)
def test_a_table_that_is_wrong(text: str | None, says: str, tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    if text is not None:
        table(tmp_path, text, "depths.csv")
    assert says in error_of(section(tables=("depths.csv",)), tmp_path)
