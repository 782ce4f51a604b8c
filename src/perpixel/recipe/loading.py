"""Reading recipes: built-in names or YAML files, overrides, and errors that name the cure."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perpixel.errors import RecipeError
from perpixel.recipe.loss import LOSS_NAMES
from perpixel.recipe.schema import Recipe

_BUILTIN = resources.files("perpixel.recipe") / "builtin"


def builtin_names() -> list[str]:
    """Names of the built-in recipes, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _BUILTIN.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        source: a built-in name, or the path of a YAML file.
        overrides: ``section.key=value`` texts; values are read as YAML.

    Raises:
        RecipeError: with every problem of the file and the overrides at once.
    """
    text, where = _read(source)
    try:
        values = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError("this is not valid YAML", where=where, details=[_yaml_problem(error)]) from None
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a YAML mapping of sections", where=where)
    return recipe_from_dict(values, overrides, where=where)


def recipe_from_dict(values: dict[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """Validate plain values, which stay as they are, as a recipe; raises RecipeError as `load_recipe` does."""
    values = copy.deepcopy(values)
    problems: list[str] = []
    for override in overrides:
        problem = _apply_override(values, override)
        if problem:
            problems.append(problem)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += _describe(error, values)
    if problems:
        raise RecipeError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in this recipe",
            where=where,
            details=problems,
            cure="correct the file, or the --set values, and run the command again.",
        )
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; loading it again gives an equal recipe."""
    return yaml.dump(
        recipe.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )


_FLOAT = re.compile(r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$")


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader of YAML 1.2's plain values that refuses a key written twice.

    PyYAML reads YAML 1.1, where ``off`` is false, ``1e-4`` is text, ``010`` is 8 and ``1:30`` is 90; and of a key
    that is written twice it silently keeps the last.
    """


_UniqueKeys.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _UniqueKeys.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around all text that YAML 1.1 or 1.2 would read as something else."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a key must be text; text with { or [ in front needs quotes", problem_mark=key.start_mark
            )
    keys = [loader.construct_object(key) for key, _ in node.value]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key!r} is written twice", problem_mark=node.value[position][0].start_mark
            )
    return dict(loader.construct_pairs(node, deep=True))


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} is no text (U+{error.character:04X})"
    return " ".join(str(error).split())


def _read(source: str | Path) -> tuple[str, str]:
    name = str(source)
    if name in builtin_names():
        return (_BUILTIN / f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}"
    path = Path(source)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError:
            raise RecipeError("this file is not UTF-8 text", where=path, cure="save it as UTF-8.") from None
        except OSError as error:
            raise RecipeError(f"cannot read this file: {error.strerror}", where=path) from None
    raise RecipeError(
        f"no built-in recipe and no file has this name{did_you_mean(name, builtin_names())}",
        where=name,
        rule=f"built-in recipes: {', '.join(builtin_names())}.",
        cure="name one of them, or the path of a YAML file.",
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` when a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _apply_override(values: dict[str, Any], override: str) -> str | None:
    """Set one key in place; returns the problem, if there is one."""
    key, separator, text = override.partition("=")
    key = key.strip()
    *sections, last = key.split(".")
    if not separator or not all((*sections, last)):
        return f"--set {override}: write section.key=value"
    node: Any = values
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            cure = "; set the whole list" if isinstance(node, (list, tuple)) else ""
            return f"--set {key}: {section} is not a section{cure}"
    node[last] = _override_value(text)
    return None


def _override_value(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text  # A template such as {subset}/images/{id}.png is no YAML, and means itself.


_RULES = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "{ge} or more",
    "int_type": "a whole number",
    "less_than": "below {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "missing": "a longer list",
    "model_type": "a section: keys with values",
    "string_too_short": "at least {min_length} letter long",
    "string_type": "text (put quotes around it)",
    "too_long": "a list of at most {max_length} values",
    "too_short": "a list of at least {min_length} values",
    "tuple_type": "a list",
}


def _describe(error: ValidationError, values: dict[str, Any]) -> list[str]:
    """Each problem as one line `key = value: the rule`.

    A value that may be of several kinds (a number, or a word) has an error for each of them. They make one line,
    unless one kind came as far as the items of the value: then only these are told.
    """
    places: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    whole: set[tuple[int | str, ...]] = set()
    for detail in error.errors(include_url=False):
        path, union = _path(detail, values)
        places.setdefault(path, []).append(detail)
        if union is not None or detail["type"] == "too_short":  # pydantic counts the valid items alone
            whole.add(path if union is None else path[:union])
    lines = []
    for path, details in places.items():
        if path in whole and any(len(other) > len(path) and other[: len(path)] == path for other in places):
            continue
        lines.append(_line(path, details))
    return lines


def _path(detail: ErrorDetails, values: Any) -> tuple[tuple[int | str, ...], int | None]:
    """The keys that lead to a problem, and how many of them lead to the union that it is in, if it is in one."""
    path: list[int | str] = []
    union = None
    for part in detail["loc"]:
        if isinstance(values, (list, tuple)) and isinstance(part, int):
            if part >= len(values):  # One value too few: a problem of the list.
                break
            values = values[part]
        elif isinstance(values, dict) and part in values:
            values = values[part]
        elif isinstance(values, dict) and values.get("kind") == part:
            continue  # pydantic's name for the section that ``kind`` chose
        elif not isinstance(values, dict) or detail["type"] != "missing" or part != detail["loc"][-1]:
            union = len(path)  # pydantic's name for one kind of a union is no key.
            continue
        path.append(part)
    return tuple(path), union


def _line(path: tuple[int | str, ...], details: list[ErrorDetails]) -> str:
    key = ".".join(str(part) for part in path) or "recipe"
    detail = details[0]
    value = detail["input"]
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(path[-1]), _fields_at(path[:-1]))}"
    if detail["type"] == "invalid_key":
        return f"{key}: a key must be text"
    if detail["type"] == "union_tag_not_found":
        return f"{key}.kind: this key is required: {' or '.join(_KINDS)}"
    if detail["type"] == "union_tag_invalid":
        tag = detail["ctx"]["tag"]
        return f"{key}.kind = {_shown(tag)}: must be {' or '.join(_KINDS)}{did_you_mean(tag, _KINDS)}"
    if detail["type"] == "missing" and isinstance(value, dict):
        return f"{key}: this key is required"
    shown = "" if isinstance(value, (dict, BaseModel)) else f" = {_shown(value)}"
    rules = [_rule(detail) for detail in details]
    if None in rules:
        return f"{key}{shown}: {detail['msg'].removeprefix('Value error, ')}"
    words = [word for item in details for word in re.findall("'([^']*)'", item.get("ctx", {}).get("expected", ""))]
    close = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"{key}{shown}: must be {' or '.join(dict.fromkeys(map(str, rules)))}{close}"


_KINDS = list(LOSS_NAMES)


def _rule(detail: ErrorDetails) -> str | None:
    template = _RULES.get(detail["type"])
    limits = {
        name: f"{limit:.10g}" if isinstance(limit, float) else limit for name, limit in detail.get("ctx", {}).items()
    }
    return template.format(**limits) if template else None


_PLAIN = {None: "null", True: "true", False: "false"}


def _shown(value: object) -> str:
    """A value as it stands in a recipe, cut when it is long."""
    text = repr(value) if value is not None and not isinstance(value, bool) else _PLAIN[value]
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields_at(path: Sequence[int | str]) -> list[str]:
    """Names of the keys that are known at this place of a recipe."""
    models: list[type[BaseModel]] = [Recipe]
    for part in path:
        if not isinstance(part, int):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [section for field in fields for section in _sections_in(field.annotation)]
    return [name for model in models for name in model.model_fields]


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes inside an annotation such as ``tuple[ClassSpec, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in getattr(annotation, "__args__", ()) for section in _sections_in(inner)]
