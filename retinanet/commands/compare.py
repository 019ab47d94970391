"""Compare two result files of a set."""

from pathlib import Path

from retinanet.cli.test_flags import EvaluationSettings
from retinanet.coco.annotations import has_objects, placeholder_note
from retinanet.coco.results import load_results
from retinanet.data.dataset import load_set_without_images
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.compare import compare
from retinanet.reports.analysis_text import comparison_lines
from retinanet.reports.box_pictures import draw_grid
from retinanet.reports.figures import require_picture_place, save_figure
from retinanet.reports.panels import comparison_panels, no_pictures_line
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError


def compare_results(settings: EvaluationSettings, path_a: Path, path_b: Path) -> int:
    """Print what changed from one result file to the other, and draw the images most won and lost."""
    picture = (settings.report or Path()) / "compare.png"
    dataset = load_set_without_images(settings.coco_path, settings.name_of_set, settings.max_pixels)
    annotations = dataset.annotations
    has_images = bool(dataset.images_there().any())
    if has_images:
        require_picture_place(picture)
    if not has_objects(annotations):
        why = placeholder_note(annotations)
        raise UserError(
            f"{annotations.path}: has no objects, so results can't be compared{why}. Choose another --set_name."
        )
    a, b = (analyse(annotations, load_results(path, annotations), settings.num_draws) for path in (path_a, path_b))
    comparison = compare(a, b, annotations)
    say(f"A: {path_a}", f"B: {path_b}")
    say(*comparison_lines(comparison, settings.num_draws, len(dataset)))
    if line := no_pictures_line(dataset):
        say(line)
    if not has_images:
        return 0
    panels = comparison_panels(comparison, a, b, dataset)
    if not panels:
        say("No image is won or lost, so there is no picture")
        return 0
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_figure(draw_grid(panels, annotations.class_names, columns=4), picture)
    say(f"Picture of the images most won and most lost: {picture}")
    return 0
