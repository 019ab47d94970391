"""Compare two result files of a set."""

from pathlib import Path

from retinanet.cli.test_flags import EvaluationSettings
from retinanet.coco.annotations import has_objects, placeholder_boxes
from retinanet.data.dataset import load_set
from retinanet.data.settings import MAX_SIDE, MIN_SIDE
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.compare import compare
from retinanet.reports.analysis_text import comparison_lines
from retinanet.reports.box_pictures import draw_grid
from retinanet.reports.figures import require_picture_place, save_figure
from retinanet.reports.panels import comparison_panels
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.submission.check import load_results


def compare_results(settings: EvaluationSettings, path_a: Path, path_b: Path) -> int:
    """Print what changed from one result file to the other, and draw the images most won and lost."""
    picture = (settings.report or Path()) / "compare.png"
    require_picture_place(picture)
    annotations, dataset = load_set(
        settings.coco_path,
        settings.name_of_set,
        min_side=MIN_SIDE,
        max_side=MAX_SIDE,
        max_pixels=settings.max_pixels,
    )
    if not has_objects(annotations):
        why = f": it {reason}" if (reason := placeholder_boxes(annotations)) else ""
        raise UserError(
            f"{annotations.path}: has no objects, so results can't be compared{why}. Choose another --set_name."
        )
    a, b = (analyse(annotations, load_results(path, annotations), settings.num_draws) for path in (path_a, path_b))
    comparison = compare(a, b, annotations)
    say(f"A: {path_a}", f"B: {path_b}")
    say(*comparison_lines(comparison, settings.num_draws, len(dataset)))
    panels = comparison_panels(comparison, a, b, dataset)
    if not panels:
        say("No image is won or lost, so there is no picture")
        return 0
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_figure(draw_grid(panels, annotations.class_names, columns=4), picture)
    say(f"Picture of the images most won and most lost: {picture}")
    return 0
