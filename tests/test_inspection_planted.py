"""Every planted fault is found and named; clean sets stay silent."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import planted_files
import planted_maps
from perpixel.inspection import inspect_folder, inspect_recipe, measure
from perpixel.recipe import Recipe, SegmentationTarget
from planted import CLEAN, FAULTS, Fault, copy_of

assert planted_files and planted_maps  # importing them registers their faults


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Recipe]]:
    """Clean sets by name; for reading alone."""
    sets = {}
    for name, write in CLEAN.items():
        root = tmp_path_factory.mktemp(f"clean-{name}") / name
        sets[name] = (root, write(root))
    return sets


def alarms(inspection: object) -> list[str]:
    return [finding.text() for finding in inspection.findings if finding.severity != "note"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_set_is_silent(name: str, clean: dict[str, tuple[Path, Recipe]]) -> None:
    inspection, _ = inspect_recipe(clean[name][1])
    assert not alarms(inspection)


@pytest.mark.parametrize("name", CLEAN)
def test_a_bare_clean_folder_is_understood(name: str, clean: dict[str, tuple[Path, Recipe]]) -> None:
    root, recipe = clean[name]
    inspection, _ = inspect_folder(root)
    assert not alarms(inspection)
    assert inspection.recipe is not None
    assert (inspection.recipe.data.images, inspection.recipe.data.targets) == (recipe.data.images, recipe.data.targets)
    assert meaning(inspection.recipe) == meaning(recipe)


def meaning(recipe: Recipe) -> dict[str, object]:
    """What a target section says of the files, without names, colours and what only a training asks for."""
    values = recipe.target.model_dump(exclude={"output", "ignore", "border", "classes", "maximum_m"})
    if isinstance(recipe.target, SegmentationTarget):
        values["classes"] = [spec.values[-1] for spec in recipe.target.classes]
    return values


@pytest.mark.parametrize("planted", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_a_planted_fault_is_found(planted: Fault, clean: dict[str, tuple[Path, Recipe]], tmp_path: Path) -> None:
    root = tmp_path / "set"
    recipe = copy_of(clean[planted.base][0], root, clean[planted.base][1])
    recipe = planted.plant(root, recipe) or recipe
    inspection, _ = inspect_recipe(recipe)
    found = {finding.rule for finding in inspection.findings}
    assert planted.rule in found, inspection.text()
    wrong = {finding.rule for finding in inspection.findings if finding.severity != "note"} - {
        planted.rule,
        *planted.may,
    }
    assert not wrong, inspection.text()


@pytest.mark.parametrize("base", ["masks", "depth", "lowlight"])
def test_mutated_files_make_findings_and_no_traceback(
    base: str, clean: dict[str, tuple[Path, Recipe]], tmp_path: Path
) -> None:
    recipe = copy_of(clean[base][0], tmp_path / "set", clean[base][1])
    rng = np.random.default_rng(7)
    for path in sorted((tmp_path / "set").rglob("*.png")):
        path.write_bytes(mutated(path.read_bytes(), rng))
    inspection, _ = inspect_recipe(recipe)
    assert inspection.errors


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, a part cut out, or the end cut off."""
    flipped = bytearray(content)
    for at in rng.integers(0, len(content), rng.integers(1, 12)):
        flipped[at] = rng.integers(256)
    low, high = sorted(rng.integers(0, len(content), 2))
    return (bytes(flipped), content[:low] + content[high:], bytes(flipped[:high]))[rng.integers(3)]


def test_a_second_look_reads_no_pixel(clean: dict[str, tuple[Path, Recipe]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, recipe = clean["masks"]
    first, _ = inspect_recipe(recipe)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was decoded again")

    monkeypatch.setattr(measure, "read_image", refuse)
    monkeypatch.setattr(measure, "read_label_map", refuse)
    assert inspect_recipe(recipe)[0].as_dict() == first.as_dict()
    copy = copy_of(root, root.parent / "moved", recipe)  # the content counts, not the place
    assert inspect_recipe(copy)[0].figures == first.figures


def test_frames_without_a_table_are_split_by_blocks(clean: dict[str, tuple[Path, Recipe]], tmp_path: Path) -> None:
    copy_of(clean["unity"][0], tmp_path / "set", clean["unity"][1])
    (tmp_path / "set" / "scenes.csv").unlink()
    inspection, _ = inspect_folder(tmp_path / "set")
    assert inspection.recipe is not None
    assert inspection.recipe.split.method == "grouped"
    assert not alarms(inspection)


def test_several_targets_of_the_same_images_are_named(clean: dict[str, tuple[Path, Recipe]], tmp_path: Path) -> None:
    copy_of(clean["desert"][0], tmp_path / "set", clean["desert"][1])
    for subset in ("train", "val"):
        shutil.copytree(tmp_path / "set" / subset / "Segmentation", tmp_path / "set" / subset / "Depth")
    inspection, _ = inspect_folder(tmp_path / "set")
    assert inspection.recipe is not None
    assert inspection.recipe.data.targets == "{subset}/Segmentation/{id}.png"  # as the built-in recipe has it
    assert any("{subset}/Depth/{id}.png" in fact for fact in inspection.facts)


def test_there_are_many_kinds() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40


def test_a_blank_picture_may_be_the_same_file_as_its_empty_mask(tmp_path: Path) -> None:
    for number in range(12):
        for folder in ("images", "masks"):
            path = tmp_path / "train" / folder / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(number)
            picture_hw = (
                rng.integers(0, 255, (24, 24)) if folder == "images" else 255 * (np.indices((24, 24))[0] > number)
            )
            Image.fromarray((picture_hw * (number > 0)).astype(np.uint8)).save(path)
    inspection, _ = inspect_folder(tmp_path)
    assert "pair-same-file" not in {finding.rule for finding in inspection.findings}
