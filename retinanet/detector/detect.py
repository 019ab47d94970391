"""From the network's output to detections: the best candidates, decoded, without duplicates."""

import torch
from torch import Tensor
from torchvision.ops import nms

from retinanet.detector.boxes import clip, decode
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Candidates, Detections, Predictions

# torchvision's NMS takes a bit for each pair of a call's candidates on a GPU. Of several images so many, 34 MB; of one
# at most so many, 2 GB: above 393,216 its last kernel could not be launched.
CANDIDATES_AT_ONCE, MOST_ON_GPU = 2**14, 2**17


@torch.no_grad()
def detect(
    predictions: Predictions,
    anchors: Tensor,
    sizes: Tensor,
    settings: DetectionSettings = DEFAULT_DETECTION,
) -> Detections:
    """The detections of each image whose score exceeds `threshold`, K = `max_detections` at most.

    A candidate is a pair of anchor and class; the `num_candidates` best of an image are decoded with `anchors` [A, 4],
    clipped to the image's `sizes` [B, 2], and thinned by non-maximum suppression within each class. Boxes that lie
    outside of their image are dropped.
    """
    return suppress(find_candidates(predictions, anchors, sizes, settings.num_candidates), sizes, settings)


@torch.no_grad()
def find_candidates(predictions: Predictions, anchors: Tensor, sizes: Tensor, num_candidates: int) -> Candidates:
    """The `num_candidates` best pairs of anchor and class of each image, decoded and clipped as in `detect`."""
    num_classes = predictions.logits.shape[2]
    flat = predictions.logits.flatten(1)  # [B, A * C]; logits order as scores do, and only the best need the sigmoid
    best = flat.topk(min(num_candidates, flat.shape[1]), dim=1)
    scores = best.values.float().sigmoid()  # [B, N], N candidates
    anchor_indices, labels = best.indices // num_classes, best.indices % num_classes
    deltas = predictions.deltas.float().gather(1, anchor_indices[..., None].expand(-1, -1, 4))
    return Candidates(clip(decode(deltas, anchors[anchor_indices]), sizes), scores, labels)


@torch.no_grad()
def suppress(candidates: Candidates, sizes: Tensor, settings: DetectionSettings = DEFAULT_DETECTION) -> Detections:
    """The best of `candidates` without duplicates: see `detect`. Their boxes lie within `sizes` [B, 2]."""
    boxes, scores, labels = candidates
    valid = (scores > settings.threshold) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    step = sizes.max().double() + 1
    # One call for several images saves a GPU's waits for the others.
    is_at_once = boxes.device.type != "cpu" and boxes.shape[1] <= CANDIDATES_AT_ONCE
    survivors = _survivors_at_once if is_at_once else _survivors_by_image
    kept = valid & survivors(boxes, scores, labels, valid, step, settings.nms_iou)
    # A stable sort leaves candidates of equal score in their order, so the result is the same on every device.
    ranked, order = scores.masked_fill(~kept, -1).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, : settings.max_detections], order[:, : settings.max_detections]  # [B, K]
    found = ranked >= 0
    return Detections(
        boxes=boxes.gather(1, order[..., None].expand(-1, -1, 4)) * found[..., None],
        scores=ranked * found,
        labels=labels.gather(1, order).masked_fill(~found, -1),
    )


# All give bool [B, N], the candidates that outlive the suppression within their image and class. Boxes of different
# groups are shifted apart by multiples of `step`, more than any side, so that one call serves several. In float32 the
# far groups of 16 images x 80 classes would be left with 1/8 pixel; float64 is exact enough.


def _survivors_by_image(
    boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, step: Tensor, nms_iou: float
) -> Tensor:
    kept = torch.zeros_like(valid)
    for image in range(len(boxes)):
        rows = valid[image].nonzero().squeeze(1)
        shifted = boxes[image, rows].double() + (labels[image, rows] * step)[:, None]
        ranks = scores[image, rows].double()
        if len(rows) > MOST_ON_GPU:  # the CPU's way needs no memory for pairs, and finds the same
            shifted, ranks = shifted.cpu(), ranks.cpu()
        kept[image, rows[nms(shifted, ranks, nms_iou).to(rows.device)]] = True
    return kept


def _survivors_at_once(
    boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, step: Tensor, nms_iou: float
) -> Tensor:
    some = max(1, CANDIDATES_AT_ONCE // boxes.shape[1])  # images
    parts = zip(boxes.split(some), scores.split(some), labels.split(some), valid.split(some), strict=True)
    return torch.cat([_survivors_together(*part, step, nms_iou) for part in parts])


def _survivors_together(
    boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, step: Tensor, nms_iou: float
) -> Tensor:
    """In one call for all images, which makes a GPU's host wait once."""
    groups = labels + (labels.max() + 1) * torch.arange(len(boxes), device=boxes.device)[:, None]
    shifted = boxes.double() + (groups * step)[..., None]
    # A candidate that is not valid ranks behind all that are, so it suppresses none of them.
    ranks = scores.masked_fill(~valid, -1).double()
    kept = torch.zeros_like(valid).flatten()
    # Not kept[...] = True: the True would be copied to the GPU, and waited for.
    kept.index_fill_(0, nms(shifted.flatten(0, 1), ranks.flatten(), nms_iou), True)
    return kept.view_as(valid)
