"""The order of the rooms, and who may know what. A new file needs no line here; a new room does."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "retinanet"
# A room imports from itself and from those before it.
ROOMS = (
    *("runtime", "detector", "settings", "coco", "data", "checkpoints", "evaluation", "reports", "training"),
    *("submission", "check_data", "check_labels", "predict", "export", "convert", "sample_data", "commands"),
)
SCRIPTS = "__main__"  # reads the flags and calls the command: above all rooms
ALONE = ("runtime", "detector")  # import nothing of ours outside themselves
FILES = sorted(PACKAGE.rglob("*.py"))
KNOWN_BY = {  # places, as the start of a path in the package
    "argparse": ("settings/",),
    "pycocotools": ("evaluation/coco_table",),
    "hotcoco": ("evaluation/coco_table",),
    "matplotlib": ("reports/", "check_data/charts"),
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imported(path: Path) -> set[str]:
    """The modules that the file imports anywhere, ours as room.file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: write absolute imports"
            is_room = node.module.removeprefix("retinanet.") in ROOMS
            names |= {f"{node.module}.{name.name}" for name in node.names} if is_room else {node.module}
    return names


IMPORTS = {name_of(path): imported(path) for path in FILES}
OURS = {
    name: {module.removeprefix("retinanet.").replace(".", "/") for module in modules if module.startswith("retinanet.")}
    for name, modules in IMPORTS.items()
}


def test_every_file_is_in_a_room():
    assert {path.parent.name for path in FILES if path.parent != PACKAGE} == set(ROOMS)
    assert [path.name for path in FILES if path.parent == PACKAGE] == [
        "__init__.py",
        "__main__.py",
        "inputs.py",
        "launch.py",
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_itself_and_lower_rooms(room):
    allowed = (room,) if room in ALONE else ROOMS[: ROOMS.index(room) + 1]
    wrong = {
        (name, other)
        for name, others in OURS.items()
        for other in others
        if name.startswith(f"{room}/") and not name.endswith(SCRIPTS) and other.split("/")[0] not in allowed
    }
    assert not wrong


def test_no_two_files_import_each_other_even_by_way_of_others():
    left = dict(OURS)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("library", KNOWN_BY)
def test_only_some_places_know_a_library(library):
    users = [name for name, modules in IMPORTS.items() if library in {module.split(".")[0] for module in modules}]
    assert users
    assert all(name.startswith(KNOWN_BY[library]) for name in users), users


def test_one_place_asks_whether_there_is_a_gpu():
    assert len([path for path in FILES if "cuda.is_available" in path.read_text()]) == 1


def test_a_namespace_stays_in_the_room_of_settings():
    users = [name_of(path) for path in FILES if "Namespace" in path.read_text()]
    assert all(name.startswith(KNOWN_BY["argparse"]) for name in users), users
