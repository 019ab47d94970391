import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Within a layer a file may import those on its left.
LAYERS = (
    (
        *(
            "errors",
            "printable",
            "files",
            "archives",
            "packed_names",
            "precision",
            "structures",
            "boxes",
            "giou",
            "torchfiles",
        ),
        *("backbone", "transforms", "images", "image_cache", "stopping", "faults", "random_states"),
        *("optimizer", "weight_average"),
    ),
    (
        *("anchors", "matching", "crowds", "atss", "anchor_coverage", "schedule", "samplers", "augmentation"),
        *(
            "log_names",
            "annotation_entries",
            "box_units",
            "annotations",
            "annotation_arrays",
            "annotation_cache",
            "layout",
        ),
        *("bad_images", "data_faults"),
    ),
    (
        *(
            "model",
            "regression_windows",
            "coco_weights",
            "loss",
            "detect",
            "data",
            "loaders",
            "learnable",
            "data_doubts",
        ),
        *("image_content", "data_counts"),
    ),
    (
        *("compute", "distributed", "skipped_steps", "training_state", "views", "engine", "detect_set"),
        *("evaluate", "checkpoint", "resume", "results_zip", "results", "results_guesses", "results_check"),
        *(
            "results_corrections",
            "results_fix",
            "results_names",
            "output",
            "average_precision",
            "matches",
            "confusion",
            "bootstrap",
        ),
        *("error_kinds", "analysis", "analysis_text", "label_places", "fonts", "plots", "augmented_panels"),
        *("log_file", "log_reader", "log_table", "curves", "data_report", "data_charts", "analysis_panels", "charts"),
        *("report", "compare"),
    ),
    (
        *("command_line", "log_lines", "augment_flags", "train_flags", "network_setup", "train_checks"),
        *(
            "train_setup",
            "val_table",
            "saves",
            "verify_resume",
            "lr_range",
            "seeds",
            "cutouts",
            "sample_data",
            "check_data",
            "launch",
        ),
    ),
)
ORDER = [name for layer in LAYERS for name in layer]
FILES = sorted((ROOT / "retinanet").glob("[!_]*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "write absolute imports"
            names |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
    return names


def own(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("retinanet.")} & set(ORDER)


def test_every_file_has_a_layer():
    assert {path.stem for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_point_down(path):
    later = set(ORDER[ORDER.index(path.stem) :])
    assert not own(imported(path)) & later


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_who_may_know_what(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert "pycocotools" not in roots or path.stem == "evaluate"
    assert "argparse" not in roots or path.stem in LAYERS[4]
    assert "cuda.is_available" not in path.read_text() or path.stem == "command_line"
