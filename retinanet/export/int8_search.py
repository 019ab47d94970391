"""Finds which layers of an INT8 file must stay in float for the file to lose little AP."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from retinanet.coco.annotations import Annotations
from retinanet.detector.boxes import iou
from retinanet.detector.structures import Detections
from retinanet.evaluation.analysis import Analysis
from retinanet.evaluation.compare import compare
from retinanet.evaluation.intervals import Interval
from retinanet.export.int8 import Quantiser

MOST_FLOAT = 0.5  # fraction of the layers; with more in float, the file would hardly be smaller or faster


class Trial(NamedTuple):
    content: bytes  # of the quantised ONNX file
    floats: list[str]  # the layers in float
    analysis: Analysis
    loss: Interval  # AP of the checkpoint minus AP of the file, over the same bootstrap draws of the images


def trials(
    quantiser: Quantiser,
    measure: Callable[[bytes], Analysis],
    harm_of: Callable[[bytes], float],
    checkpoint: Analysis,
    annotations: Annotations,
) -> Iterator[Trial]:
    """Yields a file with no layer in float, then files with the 1, 2, 4, 8, ... most harmful layers in float.

    `measure` analyses a file's detections on the set `annotations`; `checkpoint` is the same analysis of the
    checkpoint's detections. The harm of a layer is what `harm_of` returns for a file in which only this layer is
    quantised. Files are created and measured only when they are asked for.
    """
    ranked: list[str] = []
    count = 0
    while count <= MOST_FLOAT * len(quantiser.layers):
        if count and not ranked:
            ranked = sorted(quantiser.layers, key=lambda layer: -harm_of(quantiser.with_only(layer)))
        content = quantiser.without(ranked[:count])
        analysis = measure(content)
        loss = compare(analysis, checkpoint, annotations).differences[0].difference
        yield Trial(content, ranked[:count], analysis, loss)
        count = max(1, 2 * count)


def disagreement(ours: Detections, theirs: Detections) -> float:
    """Returns how much the detections `theirs` differ from `ours` in the same images: from 0 (not at all) to 1.

    This is 1 minus the mean agreement of the detections in `ours`, weighted by score. A detection's agreement is the
    highest IoU * (1 - score difference) with any detection of its class in `theirs`.
    """
    overlaps = iou(
        [part[:, :, None] for part in ours.boxes.unbind(2)], [part[:, None] for part in theirs.boxes.unbind(2)]
    )
    gaps = (ours.scores[:, :, None] - theirs.scores[:, None]).abs()
    is_comparable = (ours.labels[:, :, None] == theirs.labels[:, None]) & (ours.labels[:, :, None] >= 0)
    best = torch.where(is_comparable, overlaps * (1 - gaps), 0.0).amax(dim=2)  # [B, K]
    total = float(ours.scores.sum())
    return 1 - float((ours.scores * best).sum()) / total if total else 0.0
