"""The short form of check_data that training prints at its start."""

import shlex

import numpy as np

from retinanet.check_data.findings import SCARCE
from retinanet.data.anchor_coverage import best_ious, other_anchors, shares
from retinanet.data.dataset import CocoDataset
from retinanet.detector.anchors import DEFAULT_SHAPES, AnchorShapes
from retinanet.training.settings import TrainSettings

MOST_DRAWN = 100_000  # objects whose anchors are compared: a sample of millions gives the shares within 0.3%
MUCH_UNREACHED = 0.05  # of the objects
MOST_SCARCE_NAMED = 10  # scarce classes


def data_lines(dataset: CocoDataset, shapes: AnchorShapes, settings: TrainSettings) -> list[str]:
    """How many objects `dataset` has to learn, and how well anchors of `shapes` cover them."""
    annotations, rows = dataset.annotations, np.flatnonzero(dataset.is_learned)
    num_clipped = int((dataset.overhangs()[rows] >= 1).sum())
    counts = np.bincount(annotations.labels[rows], minlength=len(annotations.class_names)).tolist()
    scarce = [f"{name} {count}" for count, name in sorted(zip(counts, annotations.class_names, strict=True))]
    scarce = scarce[: sum(count < SCARCE for count in counts)]
    more = [f"and {len(scarce) - MOST_SCARCE_NAMED} more"] if len(scarce) > MOST_SCARCE_NAMED else []
    drawn = rows if len(rows) <= MOST_DRAWN else np.random.default_rng(0).choice(rows, MOST_DRAWN, replace=False)
    objects = dataset.learned(drawn)
    foreground, background = settings.foreground_iou, settings.background_iou
    found = shares(best_ious(objects.boxes, shapes), foreground, background)
    reached = [f"{share:.1%}" for share in found]
    lines = [
        f"Objects to learn: {len(rows)} of {len(counts)} classes; {num_clipped} are clipped at their image's border",
        f"Classes of fewer than {SCARCE} objects: {', '.join([*scarce[:MOST_SCARCE_NAMED], *more]) or 'none'}",
        f"Best anchor of {len(drawn)} objects{' drawn' if len(drawn) < len(rows) else ''}: IoU from {foreground:g} "
        f"for {reached[0]}, {background:g} to {foreground:g} for {reached[1]}, below for {reached[2]} "
        f"(more: {check_command(settings)})",
    ]
    unreached = 1 - found[0] if len(rows) else 0.0
    if settings.matcher == "iou" and unreached > MUCH_UNREACHED:  # the other matchers reach further
        lines.append(_unreached_warning(unreached, objects.boxes, shapes, foreground))
    return lines


def _unreached_warning(unreached: float, boxes: np.ndarray, shapes: AnchorShapes, foreground: float) -> str:
    left = {name: 1 - shares(best_ious(boxes, other), foreground)[0] for name, other in other_anchors(shapes).items()}
    best = min(left, key=lambda name: left[name])
    better = f"{best} leaves {left[best]:.1%}, and " if left[best] < unreached else ""
    return (
        f"Warning: {unreached:.1%} of the objects have no anchor of IoU {foreground:g}, so they are hardly learned: "
        f"{better}--matcher low_quality leaves none"
    )


def check_command(settings: TrainSettings) -> str:
    """The command that checks a training's sets at its sides."""
    words = ["python", "-m", "retinanet.check_data", "--coco_path", str(settings.coco_path)]
    words += ["--sets", *dict.fromkeys((settings.train_set, settings.val_set))]
    words += ["--min_side", str(settings.min_side), "--max_side", str(settings.max_side)]
    return shlex.join([*words, *anchor_words(settings.start.anchor_shapes)])


def anchor_words(shapes: AnchorShapes) -> list[str]:
    """The flags of anchors that are not the default ones."""
    scale = ["--anchor_scale", f"{shapes.side:g}"] if shapes.side != DEFAULT_SHAPES.side else []
    ratios = ["--anchor_ratios", *(f"{ratio:g}" for ratio in shapes.ratios)]
    octaves = ["--anchor_octaves", str(len(shapes.scales))]
    return [
        *scale,
        *(ratios if shapes.ratios != DEFAULT_SHAPES.ratios else []),
        *(octaves if shapes.scales != DEFAULT_SHAPES.scales else []),
    ]
