"""The house keeps its shape: rooms import downward, torch comes late, only tasks ask which task it is, all is small."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "perpixel"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room is a file or a folder of src/perpixel. It imports from the floors below its own.
FLOORS = (
    {"errors", "console", "notebook", "_torchvision"},
    {"images", "rle", "depth_codec", "depth_files", "depth_maps", "pointcloud", "imresize", "luma"},
    {"recipe", "run"},
    {"losses", "metrics", "models", "synthesis", "reporting", "memory"},
    {"data"},
    {"tasks"},
    {"inference", "inspection"},
    {"evaluation"},
    {"training", "exporting", "reports"},
    {"experiments", "sharding"},
    {"launching"},
)
GROUND = FLOORS[0] | FLOORS[1] | FLOORS[2]
ALLOWED: dict[str, set[str]] = {
    room: set().union(*FLOORS[:number]) for number, rooms in enumerate(FLOORS) for room in rooms
}
ALLOWED |= {
    "run": FLOORS[0] | FLOORS[1] | {"recipe"},  # a run stores its recipe
    "depth_files": FLOORS[0] | {"images"},  # pictures are opened, and files are written, in one place
    "pointcloud": FLOORS[0] | {"images", "depth_maps"},
    "depth_codec": FLOORS[0] | {"depth_files", "depth_maps", "pointcloud"},
    "losses": {"errors"},  # leaves take plain arguments: they never see a recipe
    "metrics": {"errors", "imresize", "luma"},
    "models": {"errors", "_torchvision"},
    "reporting": GROUND,
    "api": set(ALLOWED),
    "app": set(ALLOWED) | {"api"},  # nobody but two late imports of the command line knows it
    "cli": {"api", "cli_data", "cli_options", "console", "errors", "app"},
    "cli_data": {"api", "cli_options", "console"},
    "cli_options": {"errors"},
    "__init__": {"api", "errors", "recipe", "run"},
    "__main__": {"cli"},
}

NEEDS_TORCH = {
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "pytorch_lightning",
    "segmentation_models_pytorch",
    "transformers",
}
NEEDS_TORCHVISION = NEEDS_TORCH - {"torch"}  # each of them imports torchvision by itself
NEVER_TORCH = GROUND - {"_torchvision"} | {"metrics", "synthesis", "reporting", "api", "cli", "cli_data"}
TORCH_AT_TOP = {"losses", "models", "tasks", "inference", "training", "exporting"}
TORCH_AT_TOP_FILES = {"data/dataset.py"}

TASKS = {"segmentation", "depth", "restoration"}
MAY_ASK_THE_TASK = {"tasks", "recipe", "inspection"}  # inspection finds out which task a folder is of

LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 80
USUAL_FUNCTION = 40
USUAL_SHARE = 19 / 20

HELP_SECONDS = 0.5


def where(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def nodes_with_place(node: ast.AST, late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it runs late: inside a function, or for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        yield child, late
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from nodes_with_place(child, late or function or typing_only)


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, late) of every import; relative ones are resolved."""
    for node, late in nodes_with_place(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["perpixel", *path.relative_to(PACKAGE).parts[:-1]]
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}", late) for alias in node.names)


def imported_room(name: str) -> str | None:
    """The room of perpixel that a dotted name stands for; what is no room comes from ``perpixel/__init__.py``."""
    package, _, rest = name.partition(".")
    if package != "perpixel":
        return None
    room = rest.partition(".")[0]
    is_room = room and ((PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file())
    return room if is_room else "__init__"


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Each function and its lines from ``def`` to the end, the docstring left out."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            yield node, lines


def test_there_is_a_house() -> None:
    assert FILES


def test_every_room_has_a_floor() -> None:
    homeless = sorted({room_of(path) for path in FILES} - set(ALLOWED))
    assert not homeless, f"give these rooms a floor in FLOORS: {homeless}"


def test_rooms_import_downward() -> None:
    wrong = [
        f"{where(path)}:{line} {room_of(path)} may not import {room}"
        for path in FILES
        for line, name, _ in imports(path)
        if (room := imported_room(name)) is not None
        and room != room_of(path)
        and room not in ALLOWED.get(room_of(path), set())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_page_is_imported_late() -> None:
    wrong = [
        f"{where(path)}:{line} {name}"
        for path in FILES
        if room_of(path) != "app"
        for line, name, late in imports(path)
        if imported_room(name) == "app" and not (late and name.startswith("perpixel.app.server."))
    ]
    assert not wrong, "\n".join(wrong)


def needs(libraries: set[str], name: str) -> bool:
    return name.partition(".")[0] in libraries


def may_import_torch_at_top(path: Path) -> bool:
    return room_of(path) in TORCH_AT_TOP or where(path) in TORCH_AT_TOP_FILES


def test_torch_is_imported_only_where_it_is_used() -> None:
    wrong = [
        f"{where(path)}:{line} {name}"
        for path in FILES
        for line, name, late in imports(path)
        if needs(NEEDS_TORCH, name) and (room_of(path) in NEVER_TORCH or not (late or may_import_torch_at_top(path)))
    ]
    assert not wrong, "\n".join(wrong)


def test_torchvision_is_made_whole_before_it_is_imported() -> None:
    """timm, Lightning and segmentation-models-pytorch import torchvision, which fails beside a CPU build of torch.

    So a file that imports one of them, or the ``__init__.py`` of its room, calls ``ensure_torchvision``.
    """
    wrong = [
        where(path)
        for path in FILES
        if any(needs(NEEDS_TORCHVISION, name) for _, name, _ in imports(path)) and not makes_torchvision_whole(path)
    ]
    assert not wrong, f"call perpixel._torchvision.ensure_torchvision first: {wrong}"


def makes_torchvision_whole(path: Path) -> bool:
    places = [path, path.parent / "__init__.py"]
    return any("ensure_torchvision()" in ast.unparse(parse(place)) for place in places if place.exists())


def asks_the_task(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "kind" and not ast.unparse(node.value).endswith("dtype")
    if isinstance(node, ast.Compare | ast.MatchValue):
        return any(isinstance(part, ast.Constant) and part.value in TASKS for part in ast.walk(node))
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}:
        names = ast.unparse(node.args[1])
        return any(f"{task.title()}{end}" in names for task in TASKS for end in ("Task", "Target"))
    return False


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("if task == 'depth': pass", True),
        ("x = name in ('segmentation', 'depth')", True),
        ("match name:\n    case 'restoration': pass", True),
        ("recipe.target.kind", True),
        ("isinstance(recipe.target, SegmentationTarget)", True),
        ("array.dtype.kind in 'iu'", False),
        ("columns = ['id', 'depth']", False),
        ("isinstance(task, Task)", False),
    ],
)
def test_asking_the_task_is_seen(code: str, asks: bool) -> None:
    assert any(asks_the_task(node) for node in ast.walk(ast.parse(code))) is asks


def test_nobody_but_a_task_asks_which_task_it_is() -> None:
    wrong = [
        f"{where(path)}:{node.lineno} {ast.unparse(node)}"
        for path in FILES
        if room_of(path) not in MAY_ASK_THE_TASK
        for node in ast.walk(parse(path))
        if asks_the_task(node)
    ]
    assert not wrong, "\n".join(wrong)


def test_functions_are_small() -> None:
    sizes = [(lines, f"{where(path)}:{node.lineno} {node.name}") for path in FILES for node, lines in functions(path)]
    longest_first = sorted(((lines, name) for lines, name in sizes if lines > USUAL_FUNCTION), reverse=True)
    listing = "\n".join(f"{lines:4} {name}" for lines, name in longest_first)
    assert not [lines for lines, _ in sizes if lines > LONGEST_FUNCTION], listing
    assert len(longest_first) <= (1 - USUAL_SHARE) * len(sizes), listing


def test_files_are_small() -> None:
    lengths = {where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not long, f"is one of these two rooms? {long}"


@pytest.mark.parametrize(
    "start",
    [
        "from perpixel.cli import main; main()",
        "import runpy; runpy.run_module('perpixel', run_name='__main__')",
    ],
)
def test_help_comes_at_once_and_without_torch(start: str) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['perpixel', '--help']\n"
        "try:\n"
        f"    {start}\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        f"assert not {NEEDS_TORCH} & set(sys.modules)\n"
    )
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert "synthesize" in done.stdout
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < HELP_SECONDS, f"seconds of processor time, three tries: {seconds}"
