"""The short form of check_data that training prints at its start."""

import shlex
from dataclasses import replace

import numpy as np

from retinanet.check_data.findings import SCARCE
from retinanet.check_data.text import MISSED, missed_classes, remedy_lines
from retinanet.data.anchor_coverage import AnchorSetup, Coverage, coverage, ious_of, shares
from retinanet.data.anchor_remedies import mostly_missed, remedies
from retinanet.data.dataset import CocoDataset
from retinanet.detector.anchors import DEFAULT_SHAPES, AnchorShapes
from retinanet.settings.train import TrainSettings

MOST_DRAWN = 10_000  # objects that are matched: a sample of millions gives the shares within 1%
MUCH_MISSED = 0.25  # share of the objects without an anchor that is worth a warning, not just a note
MOST_SCARCE_NAMED = 10  # scarce classes


def data_lines(dataset: CocoDataset, shapes: AnchorShapes, settings: TrainSettings) -> list[str]:
    """Returns lines on the objects that `dataset` has to learn, and on how many of them get an anchor of `shapes`."""
    annotations, rows = dataset.annotations, np.flatnonzero(dataset.is_learned)
    num_clipped = int((dataset.overhangs()[rows] >= 1).sum())
    counts = np.bincount(annotations.labels[rows], minlength=len(annotations.class_names)).tolist()
    scarce = [f"{name} {count}" for count, name in sorted(zip(counts, annotations.class_names, strict=True))]
    scarce = scarce[: sum(count < SCARCE for count in counts)]
    more = [f"and {len(scarce) - MOST_SCARCE_NAMED} more"] if len(scarce) > MOST_SCARCE_NAMED else []
    setup = AnchorSetup(dataset.min_side, dataset.max_side, shapes)
    by_iou = coverage(dataset, setup, replace(settings.loss, matcher="iou"), MOST_DRAWN)
    foreground, background = settings.loss.foreground_iou, settings.loss.background_iou
    ious = ious_of(setup, by_iou.objects.corners, annotations.sizes[by_iou.objects.images])
    reached = [f"{share:.1%}" for share in shares(by_iou.matched, ious, background)]
    drawn = "" if by_iou.are_all else " drawn"
    return [
        f"Objects to learn: {len(rows)} of {len(counts)} classes; {num_clipped} are clipped at their image's border",
        f"Classes of fewer than {SCARCE} objects: {', '.join([*scarce[:MOST_SCARCE_NAMED], *more]) or 'none'}",
        f"Best anchor of {len(ious)} objects{drawn}: IoU from {foreground:g}, and matched, for {reached[0]}, from "
        f"{background:g} for {reached[1]}, below for {reached[2]} (more: {check_command(settings)})",
        *(_missed_lines(dataset, setup, settings, by_iou) if len(rows) else []),
    ]


def _missed_lines(dataset: CocoDataset, setup: AnchorSetup, settings: TrainSettings, by_iou: Coverage) -> list[str]:
    """Returns lines on the objects without an anchor and what helps; none if there are few such objects."""
    now, forced = by_iou, ""
    what = f"have no anchor of IoU {settings.loss.foreground_iou:g} at this size"
    if settings.loss.matcher != "iou":
        own = coverage(dataset, setup, settings.loss, MOST_DRAWN)
        if settings.loss.matcher == "low_quality":
            forced = f". --matcher low_quality leaves {own.missed:.1%} without any; a forced anchor rarely helps"
        else:
            now, what = own, f"get no anchor from --matcher {settings.loss.matcher} at this size"
    mostly = mostly_missed(now)
    if now.missed <= MISSED and not mostly:
        return []
    missed = f"{now.missed:.1%} of the objects {what} ({missed_classes(now, dataset.annotations.class_names)})"
    found = remedies(dataset, setup, settings.loss, now, fixed_anchors=settings.network.weights == "coco")
    lines = remedy_lines(found)
    if now.missed <= MUCH_MISSED and not mostly:  # common, and good results are still possible
        return [f"Note: {missed}{forced}" + (f". {lines[0].strip()}" if lines else "")]
    advice = ["What helps, the most useful first:", *lines] if lines else []
    return [f"Warning: {missed}, so they are hardly learned{forced}", *advice]


def check_command(settings: TrainSettings) -> str:
    """The command that checks a training's sets at its sides."""
    words = ["python", "-m", "retinanet.check_data", "--coco_path", str(settings.data.coco_path)]
    words += ["--sets", *dict.fromkeys((settings.data.train_set, settings.data.val_set))]
    words += ["--min_side", str(settings.data.min_side), "--max_side", str(settings.data.max_side)]
    return shlex.join([*words, *anchor_words(settings.network.anchors.shapes)])


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
