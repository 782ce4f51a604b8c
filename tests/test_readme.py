"""What the README shows is what works."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from typer.main import get_command

from perpixel.cli import app
from perpixel.recipe import recipe_from_dict
from perpixel.tasks import build_task, check_monitor

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_recipe_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        recipe = recipe_from_dict(yaml.safe_load(block))
        check_monitor(build_task(recipe), recipe.training.monitor)


def test_every_verb_is_listed_and_exists() -> None:
    listed = set(re.findall(r"^\| `perpixel ([\w-]+)", README, flags=re.MULTILINE))
    assert listed == set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_option_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    verbs = "|".join(sorted(commands, key=len, reverse=True))
    for line in re.findall(rf"perpixel ((?:{verbs}) [^\n`#]*)", README):
        verb, *words = line.split()
        options = {option for parameter in commands[verb].params for option in parameter.opts}
        assert {word.strip("[]") for word in words if word.strip("[").startswith("--")} <= options, line


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parents[1]
    missing = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not (root / link).exists()]
    assert not missing
