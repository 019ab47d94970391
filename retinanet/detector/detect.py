"""From the network's output to detections: the best candidates, decoded, without duplicates."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from retinanet.detector.boxes import clip, decode
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Candidates, Detections, Predictions

# On a GPU torchvision's NMS needs a bit of memory for each pair of candidates in a call: 2 GB for these. (Above 393,216
# candidates its last kernel can't be launched.)
MOST_ON_GPU = 2**17
SCORE_POWER = 0.5  # with an IoU branch, a in score^a x IoU^(1 - a) (https://arxiv.org/abs/1912.05992)


@torch.no_grad()
def detect(
    predictions: Predictions, anchors: Tensor, sizes: Tensor, settings: DetectionSettings = DEFAULT_DETECTION
) -> Detections:
    """The detections of each image with a score above `threshold`, at most K = `max_detections`.

    A candidate is an (anchor, class) pair. The `num_candidates` top-scoring ones of an image are decoded with `anchors`
    [A, 4], clipped to the image's `sizes` [B, 2], and thinned by NMS within each class. Boxes outside their image are
    dropped.
    """
    return suppress(find_candidates(predictions, anchors, sizes, settings.num_candidates), sizes, settings)


@torch.no_grad()
def find_candidates(predictions: Predictions, anchors: Tensor, sizes: Tensor, num_candidates: int) -> Candidates:
    """The `num_candidates` top-scoring candidates of each image, decoded and clipped as in `detect`."""
    num_classes = predictions.logits.shape[2]
    ranks = predictions.logits  # rank as scores do, and only the best need the sigmoid
    if predictions.deltas.shape[2] == 5:
        iou_logits = predictions.deltas[..., 4:].float()
        ranks = SCORE_POWER * F.logsigmoid(ranks.float()) + (1 - SCORE_POWER) * F.logsigmoid(iou_logits)
    best = ranks.flatten(1).topk(min(num_candidates, ranks[0].numel()), dim=1)
    scores = best.values.exp() if ranks is not predictions.logits else best.values.float().sigmoid()  # [B, N]
    anchor_indices, labels = best.indices // num_classes, best.indices % num_classes
    deltas = predictions.deltas[..., :4].float().gather(1, anchor_indices[..., None].expand(-1, -1, 4))
    return Candidates(clip(decode(deltas, anchors[anchor_indices]), sizes), scores, labels)


@torch.no_grad()
def suppress(
    candidates: Candidates,
    sizes: Tensor,
    settings: DetectionSettings = DEFAULT_DETECTION,
    survivors: Callable[[Candidates, Tensor, Tensor, float], Tensor] | None = None,
) -> Detections:
    """The top-scoring `candidates` after NMS, as in `detect`. Their boxes lie within `sizes` [B, 2].

    `survivors`: another way to do as survivors_by_image.
    """
    boxes, scores, labels = candidates
    valid = (scores > settings.threshold) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    step = sizes.max().double() + 1
    kept = valid & (survivors or survivors_by_image)(candidates, valid, step, settings.nms_iou)
    # A stable sort keeps candidates of equal score in order, so that every device gives the same result.
    ranked, order = scores.masked_fill(~kept, -1).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, : settings.max_detections], order[:, : settings.max_detections]  # [B, K]
    found = ranked >= 0
    return Detections(
        boxes=boxes.gather(1, order[..., None].expand(-1, -1, 4)) * found[..., None],
        scores=ranked * found,
        labels=labels.gather(1, order).masked_fill(~found, -1),
    )


def survivors_by_image(candidates: Candidates, valid: Tensor, step: Tensor, nms_iou: float) -> Tensor:
    """Which of the `valid` candidates survive NMS within their image and class: bool [B, N].

    Boxes of different groups are shifted apart by multiples of `step`, which exceeds every side, so that one call
    serves several groups. In float32 the far groups of 16 images x 80 classes would have a resolution of 1/8 pixel.
    """
    kept = torch.zeros_like(valid)
    for image, (boxes, scores, labels) in enumerate(zip(*candidates, strict=True)):
        rows = valid[image].nonzero().squeeze(1)
        shifted = boxes[rows].double() + (labels[rows] * step)[:, None]
        ranks = scores[rows].double()
        if len(rows) > MOST_ON_GPU:  # the CPU's NMS needs no memory for pairs, and gives the same
            shifted, ranks = shifted.cpu(), ranks.cpu()
        kept[image, rows[nms(shifted, ranks, nms_iou).to(rows.device)]] = True
    return kept
