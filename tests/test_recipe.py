"""Recipes: what is read is what was written, and what was mistyped is named."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perpixel.errors import RecipeError
from perpixel.recipe import (
    LOSS_NAMES,
    Recipe,
    builtin_names,
    did_you_mean,
    dump_recipe,
    load_recipe,
    parse_loss,
    recipe_from_dict,
)
from perpixel.synthesis.desert import DESERT_CLASSES

JARGON = ("constrained", "Tuple", "tuple", "literal[", "Input should", "Value error", "instance of", "pydantic", "dict")


def plain() -> dict[str, Any]:
    return copy.deepcopy(load_recipe("salt").to_dict())


def problems(overrides: list[str], values: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(plain() if values is None else values, overrides)
    assert not [word for word in JARGON if word in caught.value.text()], caught.value.text()
    return caught.value.details


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Reading and writing


@pytest.mark.parametrize("name", builtin_names())
def test_every_builtin_loads_and_its_dump_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description
    path = written(tmp_path, dump_recipe(recipe))
    assert load_recipe(path) == recipe
    assert set(yaml.safe_load(path.read_text())) == set(Recipe.model_fields), "the dump is complete"


def test_the_faithful_recipe_holds_the_published_figures() -> None:
    recipe = load_recipe("salt")
    assert recipe.input.size == (128, 128) and recipe.input.fit == "resize"
    assert (recipe.optimizer.name, recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (
        "adam",
        1e-4,
        1e-5,
    )
    assert (recipe.schedule.name, recipe.schedule.factor, recipe.schedule.patience) == ("plateau", 0.1, 5)
    assert (recipe.training.epochs, recipe.training.batch_size, recipe.training.seed) == (20, 32, 42)
    assert (recipe.split.validation, recipe.split.seed) == (0.2, 42)
    assert [spec.values for spec in recipe.target.classes] == [(0,), (1, 255, 65535)]


def test_the_faithful_desert_holds_the_published_figures() -> None:
    recipe = load_recipe("desert")
    raw = [spec.values for spec in recipe.target.classes]
    assert raw == [(value,) for value in (100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000)]
    assert recipe.target.ignore == (0,)
    assert [(spec.values[0], spec.name, spec.color) for spec in recipe.target.classes] == list(DESERT_CLASSES)
    assert [spec.name for spec in recipe.target.classes][::9] == ["Trees", "Sky"]
    assert (recipe.model.architecture, recipe.model.encoder) == ("deeplabv3", "resnet50")
    assert (recipe.input.size, recipe.input.fit, recipe.loss.name) == ((256, 256), "resize", "cross_entropy")
    assert (recipe.optimizer.name, recipe.optimizer.learning_rate) == ("adam", 2e-4)
    assert (recipe.schedule.name, recipe.schedule.step_epochs, recipe.schedule.factor) == ("step", 20, 0.1)
    assert (recipe.training.epochs, recipe.training.batch_size) == (40, 8)
    assert load_recipe("desert-strong").target == recipe.target and load_recipe("desert-strong").data == recipe.data


def test_crops_around_classes_need_classes() -> None:
    recipe = recipe_from_dict(plain(), ["input.fit=crop", "augmentation.rare_class_crops=0.5"])
    metres = {"kind": "depth", "stored": "uint16", "scale": 0.001, "maximum_m": 10.0}
    assert recipe.augmentation.rare_class_crops == 0.5
    found = problems(
        ["input.fit=crop", "augmentation.rare_class_crops=0.5"], plain() | {"target": metres, "loss": {"name": "l1"}}
    )
    assert found == ["recipe: augmentation.rare_class_crops needs a target of classes"]


def test_a_loss_judges_one_kind_of_target() -> None:
    assert problems(["loss.name=silog"]) == [
        "recipe: loss silog does not judge segmentation; there are: bce, bce_dice, cross_entropy, dice, focal, jaccard,"
        " lovasz, tversky"
    ]


def test_the_kind_of_a_target_must_be_known() -> None:
    values = plain()
    values["target"]["kind"] = "depht"
    known = "segmentation or depth or restoration"
    assert problems([], values) == [f"target.kind = 'depht': must be {known}; did you mean 'depth'?"]
    del values["target"]["kind"]
    assert problems([], values) == [f"target.kind: this key is required: {known}"]


def test_depth_targets_leave_nothing_open() -> None:
    open_scale = {"kind": "depth", "stored": "uint16", "maximum_m": 10.0}
    found = problems([], plain() | {"target": open_scale, "loss": {"name": "l1"}})
    assert found == ["target: a depth codec needs either a scale, or metres_at_zero and metres_at_full"]
    misspelt = open_scale | {"scale": 0.001, "baselin_m": 0.1, "invalid": ["nann"]}
    found = problems([], plain() | {"target": misspelt, "loss": {"name": "l1"}})
    assert "target.baselin_m: unknown key; did you mean 'baseline_m'?" in found
    assert any(line.startswith("target.invalid.0 = 'nann'") for line in found)


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_any_text_survives_dump_and_load(text: str) -> None:
    recipe = recipe_from_dict(plain() | {"description": text})
    assert yaml.safe_load(dump_recipe(recipe))["description"] == text, "another YAML reader sees the same"
    loaded = recipe_from_dict(yaml.load(dump_recipe(recipe), Loader=loader()))
    assert loaded == recipe


def loader() -> Any:
    from perpixel.recipe import loading

    return loading._UniqueKeys


@pytest.mark.parametrize(
    "text", ["1e5", "off", "null", "~", "010", "1:30", "true", "1.5", "2020-01-01", "", " a", "- a", "#"]
)
def test_text_that_looks_like_something_else_survives(text: str, tmp_path: Path) -> None:
    recipe = recipe_from_dict(plain() | {"description": text})
    assert load_recipe(written(tmp_path, dump_recipe(recipe))).description == text


@given(rate=st.floats(1e-12, 1e6))
def test_any_number_survives_dump_and_load(rate: float) -> None:
    recipe = recipe_from_dict(plain(), [f"optimizer.learning_rate={rate!r}"])
    assert recipe.optimizer.learning_rate == rate
    assert recipe_from_dict(yaml.load(dump_recipe(recipe), Loader=loader())) == recipe


def test_a_recipe_does_not_change() -> None:
    recipe = load_recipe("salt")
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 3


def test_plain_values_stay_as_they_are() -> None:
    values = plain()
    before = copy.deepcopy(values)
    recipe_from_dict(values, ["training.epochs=3"])
    assert values == before


def test_reading_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys\nfrom perpixel.recipe import dump_recipe, load_recipe\ndump_recipe(load_recipe('salt-strong'))\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'lightning', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Files that are no recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a recipe is a YAML mapping"),
        ("- a\n- b\n", "a recipe is a YAML mapping"),
        ("just words", "a recipe is a YAML mapping"),
        ("name: a\nname: b\n", "line 2, column 1: the key 'name' is written twice"),
        (
            "name: a\ntraining:\n  epochs: 2\n  seed: 1\n  epochs: 3\n",
            "line 5, column 3: the key 'epochs' is written twice",
        ),
        ("name: [a\n", "line 2, column 1"),
        ("name:\n\t- a\n", "line 2, column 1"),
        ("name: a: b\n", "line 1, column 8"),
        ("a: {{id}}\n", "a key must be text"),
        ("[a, b]: c\n", "a key must be text"),
        ("name: !!python/object:os.system {}\n", "line 1, column 7"),
        ("name: !!int abc\n", "not valid YAML"),
        ("name: a\n---\nname: b\n", "line 2"),
        ("name: \x01\n", "character 7 is no text (U+0001)"),
        ("[" * 5000, "nested too deeply"),
        (b"name: caf\xe9\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_says_where_and_why(text: str | bytes, says: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert says in caught.value.text() and str(path) in caught.value.text()
    assert "<unicode string>" not in caught.value.text() and caught.value.exit_status == 2


def test_a_name_that_is_nothing_lists_the_recipes() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("salt-strnog")
    assert "did you mean 'salt-strong'?" in caught.value.text()
    assert all(name in caught.value.text() for name in builtin_names())


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no file has this name"):
        load_recipe(tmp_path)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    recipe = load_recipe("salt")
    assert load_recipe(written(tmp_path, b"\xef\xbb\xbf" + dump_recipe(recipe).encode())) == recipe


def test_words_that_older_yaml_takes_for_something_else(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe("salt")).replace("cache: auto", "cache: off").replace("0.0001", "1e-4")
    recipe = load_recipe(written(tmp_path, text))
    assert recipe.data.cache == "off" and recipe.optimizer.learning_rate == 1e-4


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.epochs=3", 3),
        (" training.epochs = 3", 3),
        ("optimizer.learning_rate=1e-3", 1e-3),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=.5", 0.5),
        ("optimizer.learning_rate=2.E-2", 2e-2),
        ("optimizer.gradient_clip=null", None),
        ("optimizer.gradient_clip=", None),
        ("model.decoder_norm=true", True),
        ("model.decoder_norm=off", False),
        ("data.cache=off", "off"),
        ("data.root=a/b=c", "a/b=c"),
        ("data.root='2020'", "2020"),
        ("data.tables=[a.csv, b.csv]", ("a.csv", "b.csv")),
        ("data.images={subset}/x/{id}.png", "{subset}/x/{id}.png"),
        ("input.size=[101, 202]", (101, 202)),
        ("inference.threshold=validation", "validation"),
        ("inference.threshold=0.3", 0.3),
        ("loss.name=0.5*bce_dice + 0.5*lovasz", "0.5*bce_dice + 0.5*lovasz"),
        ("loss.class_weights=[1, 2.5]", (1.0, 2.5)),
        ("model.weights=none", "none"),
        ("name=1e5x", "1e5x"),
    ],
)
def test_set_reads_every_type(override: str, value: object) -> None:
    values = plain()
    values["augmentation"]["quarter_turns"] = 0.0
    read: Any = recipe_from_dict(values, [override])
    for part in override.partition("=")[0].strip().split("."):
        read = getattr(read, part)
    assert read == value and type(read) is type(value)


def test_set_makes_a_section_that_is_not_written_and_the_last_one_wins() -> None:
    values = {"name": "a", "target": plain()["target"]}
    recipe = recipe_from_dict(values, ["training.epochs=3", "training.epochs=4"])
    assert recipe.training.epochs == 4 and recipe.optimizer.name == "adam"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.epochs", "--set training.epochs: write section.key=value"),
        ("=3", "--set =3: write section.key=value"),
        ("training..epochs=3", "--set training..epochs=3: write section.key=value"),
        ("name.first=3", "--set name.first: name is not a section"),
        ("target.classes.0.name=x", "--set target.classes.0.name: classes is not a section; set the whole list"),
        ("trainin.epochs=3", "trainin: unknown key; did you mean 'training'?"),
        ("training.epoch=3", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("training.wombat=3", "training.wombat: unknown key"),
        ("training.epochs=ten", "training.epochs = 'ten': must be a whole number"),
        ("training.epochs=2.5", "training.epochs = 2.5: must be a whole number"),
        ("training.epochs=true", "training.epochs = true: must be a whole number"),
        ("training.epochs=null", "training.epochs = null: must be a whole number"),
        ("training.epochs=-1", "training.epochs = -1: must be 0 or more"),
        ("training.seed=-1", "training.seed = -1: must be 0 or more"),
        ("training.seed=4294967296", "training.seed = 4294967296: must be below 4294967296"),
        (
            "training.precision=fp23",
            "training.precision = 'fp23': must be 'auto', 'bf16' or 'fp32'; did you mean 'fp32'?",
        ),
        ("augmentation.horizontal_flip=true", "augmentation.horizontal_flip = true: must be a number"),
        ("augmentation.horizontal_flip=1.5", "augmentation.horizontal_flip = 1.5: must be 1 or less"),
        ("optimizer.learning_rate=1e999", "optimizer.learning_rate = inf: must be a finite number"),
        ("model=resnet50", "model = 'resnet50': must be a section: keys with values"),
        ("model=", "model = null: must be a section: keys with values"),
        ("model.decoder_norm=maybe", "model.decoder_norm = 'maybe': must be true or false"),
        ("data.root=2020", "data.root = 2020: must be text (put quotes around it)"),
        ("data.tables=a.csv", "data.tables = 'a.csv': must be a list"),
        ("input.size=128", "input.size = 128: must be a list"),
        ("input.size=[128]", "input.size = [128]: must be a longer list"),
        ("input.size=[]", "input.size = []: must be a longer list"),
        ("input.size=[1, 2, 3]", "input.size = [1, 2, 3]: must be a list of at most 2 values"),
        ("input.size=[128, 8]", "input.size.1 = 8: must be 16 or more"),
        ("inference.threshold=2", "inference.threshold = 2: must be below 1 or 'validation'"),
        ("inference.threshold=high", "inference.threshold = 'high': must be a number or 'validation'"),
        (
            "inference.threshold=valdation",
            "inference.threshold = 'valdation': must be a number or 'validation'; did you mean 'validation'?",
        ),
        ("inference.minimum_area=-3", "inference.minimum_area = -3: must be 0 or more or 'validation'"),
        (
            "loss.class_weights=equal",
            "loss.class_weights = 'equal': must be 'none', 'balanced' or 'log_balanced' or a list",
        ),
        ("loss.class_weights=[1, 0]", "loss.class_weights.1 = 0: must be above 0"),
        ("optimizer.gradient_clip=0", "optimizer.gradient_clip = 0: must be above 0"),
    ],
)
def test_a_wrong_value_is_one_plain_line(override: str, says: str) -> None:
    assert problems([override]) == [says]


def test_all_problems_are_told_at_once() -> None:
    values = plain()
    values["modle"] = {"encoder": "resnet50"}
    values["training"] |= {"epochs": -1, "batchsize": 3}
    values["target"]["classes"][1] |= {"values": ["abc", [1, 2], [1, 2, "x"]], "color": [300, 0, 0], "nam": "x"}
    values[5] = 1
    del values["target"]["classes"][0]["name"]
    found = problems(["foo", "inference.threshold=2"], values)
    assert sorted(found) == sorted(
        [
            "--set foo: write section.key=value",
            "inference.threshold = 2: must be below 1 or 'validation'",
            "modle: unknown key; did you mean 'model'?",
            "5: a key must be text",
            "training.epochs = -1: must be 0 or more",
            "training.batchsize: unknown key; did you mean 'batch_size'?",
            "target.classes.0.name: this key is required",
            "target.classes.1.nam: unknown key; did you mean 'name'?",
            "target.classes.1.values.0 = 'abc': must be a whole number or a list",
            "target.classes.1.values.1 = [1, 2]: must be a whole number or a longer list",
            "target.classes.1.values.2.2 = 'x': must be a whole number",
            "target.classes.1.color.0 = 300: must be 255 or less",
        ]
    )


def test_a_long_value_is_cut() -> None:
    (line,) = problems([f"training.epochs={'x' * 500}"])
    assert len(line) < 150


def test_an_empty_recipe_names_what_it_needs() -> None:
    assert problems([], {}) == ["name: this key is required", "target: this key is required"]


# Rules that concern several keys


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["name=a b"], "a name holds letters"),
        (["name=../up"], "a name holds letters"),
        (["data.images=train/*.png"], "holds {id} once"),
        (["data.images={id}/{id}.png"], "holds {id} once"),
        (["data.targets={id}/{other}.png"], "holds {id} once"),
        (["data.images=/train/{id}.png"], "below the data folder"),
        (["data.images=../{id}.png"], "below the data folder"),
        (["data.targets={subset}/{id}.png"], "targets holds {subset}"),
        (["data.archives=[{file: a.zip, folder: ../out}]"], "below the data folder"),
        (["data.archives=[{file: a.zip, folder: .}]"], "below the data folder"),
        (["data.archives=[{file: /a.zip, folder: a}]"], "below the data folder"),
        (["split.method=grouped"], "exactly one of group_column and group_pattern"),
        (["split.method=grouped", "split.group_column=a", "split.group_pattern=(a)"], "exactly one of"),
        (["split.method=sorted"], "needs order_column"),
        (["split.folds=3", "split.fold=3"], "must be below folds (3)"),
        (["split.validation=0.6", "split.test=0.4"], "nothing is left to train on"),
        (["split.method=grouped", "split.group_pattern='('"], "not a regular expression"),
        (["split.method=grouped", "split.group_pattern=abc"], "one pair of parentheses"),
        (["target.classes=[{name: a, values: [0], color: [0, 0, 0]}]"], "a list of at least 2 values"),
        (["loss.name=lovas"], "no loss is named 'lovas'"),
        (["loss.name=bce dice"], "not a sum of losses"),
        (["loss.name=0*bce"], "must be above 0"),
        (["loss.warm_start=bce"], "go together"),
        (["loss.class_weights=[1, 2, 3]"], "3 weights for 2 classes"),
        (["input.size=[128, 64]"], "quarter_turns needs a square"),
        (["input.long_side=512"], "long_side belongs to fit 'crop'"),
        (["augmentation.crop_scale=[0.5, 2]"], "need input.fit 'crop'"),
        (["augmentation.rare_class_crops=0.5"], "need input.fit 'crop'"),
        (["input.fit=crop", "augmentation.crop_scale=[2, 0.5]"], "a range [smallest, largest]"),
        (["input.fit=crop", "augmentation.crop_scale=[0, 1]"], "must be above 0"),
        (["inference.scales=[]"], "a list of at least 1"),
        (["inference.scales=[1, -1]"], "must be above 0"),
    ],
)
def test_rules_over_keys(overrides: list[str], says: str) -> None:
    (line,) = problems(overrides)
    assert says in line


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("name", "rock", "each class name may stand once; repeated: rock"),
        ("color", [68, 68, 68], "each class color may stand once"),
        ("values", [7, 0], "each class value may stand once; repeated: 0"),
        ("values", [[1, 2, 3]], "either all whole numbers or all colours"),
    ],
)
def test_classes_do_not_overlap(key: str, value: object, says: str) -> None:
    values = plain()
    values["target"]["classes"][1][key] = value
    (line,) = problems([], values)
    assert says in line


def test_threshold_of_many_classes() -> None:
    values = plain()
    values["target"]["classes"].append({"name": "third", "values": [9], "color": [1, 2, 3]})
    assert recipe_from_dict(values).inference.threshold == 0.5
    assert "concern two classes" in problems(["inference.threshold=0.4"], values)[0]


# Losses


def test_parse_loss() -> None:
    assert parse_loss("bce") == [(1.0, "bce")]
    assert parse_loss("0.1*bce+ 2e-1 * lovasz + dice") == [(0.1, "bce"), (0.2, "lovasz"), (1.0, "dice")]
    for wrong in ("", "bce +", "-1*bce", "bce*2", "BCE"):
        with pytest.raises(ValueError, match=r"loss|losses"):
            parse_loss(wrong)


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.sampled_from(LOSS_NAMES["segmentation"])), min_size=1, max_size=4))
def test_parse_loss_reads_what_is_written(terms: list[tuple[float, str]]) -> None:
    read = parse_loss(" + ".join(f"{weight!r}*{name}" for weight, name in terms))
    assert [name for _, name in read] == [name for _, name in terms]
    assert all(math.isclose(a, b) for (a, _), (b, _) in zip(read, terms, strict=True))


def test_did_you_mean() -> None:
    assert did_you_mean("encodr", ["encoder", "weights"]) == "; did you mean 'encoder'?"
    assert did_you_mean("xyz", ["encoder"]) == ""
