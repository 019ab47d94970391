"""Turns the network's output into detections: decodes the top-scoring candidates and removes duplicates."""

from importlib.metadata import distribution
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.detector.boxes import clip, decode
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Candidates, Detections, Predictions, Regions

# Only the operators of torchvision: its package imports PyTorch's compiler, which takes 1.5 s.
for library in Path(str(distribution("torchvision").locate_file("torchvision"))).glob("_C*.so"):
    torch.ops.load_library(library)
nms = torch.ops.torchvision.nms
# On a GPU, torchvision's NMS needs one bit of memory for each pair of candidates in a call: 2 GB for this many. (With
# more than 393,216 candidates, its last kernel can't be launched.)
MOST_ON_GPU = 2**17
MOST_AT_ONCE = 2**14  # candidates per call for several images; their pairs take 34 MB
NO_LOGIT = -1e4  # a logit whose score is 0
SCORE_POWER = 0.5  # a in score^a x IoU^(1 - a), the score if there is an IoU branch (https://arxiv.org/abs/1912.05992)


@torch.no_grad()
def detect(
    predictions: Predictions, anchors: Tensor, sizes: Tensor, settings: DetectionSettings = DEFAULT_DETECTION
) -> Detections:
    """Returns each image's detections that score above `threshold`, at most K = `max_detections` per image.

    A candidate is an (anchor, class) pair. An image's `num_candidates` top-scoring candidates are decoded with
    `anchors` [A, 4], clipped to the image's `sizes` [B, 2], and reduced by NMS within each class. Boxes outside their
    image are dropped.
    """
    return suppress(find_candidates(predictions, anchors, sizes, settings.num_candidates), sizes, settings)


@torch.no_grad()
def find_candidates(
    predictions: Predictions, anchors: Tensor, sizes: Tensor, num_candidates: int, *, padded: bool = False
) -> Candidates:
    """Returns the `num_candidates` top-scoring candidates of each image, decoded and clipped as in `detect`.

    A small image may have fewer; with `padded`, candidates with a score of 0 make up the difference.
    """
    logits, deltas = predictions
    num_classes = logits.shape[2]
    if padded:
        more = (0, 0, 0, -(-num_candidates // num_classes))  # appends anchors on which nothing can be detected
        logits, deltas, anchors = F.pad(logits, more, value=NO_LOGIT), F.pad(deltas, more), F.pad(anchors, more)
    ranks = _ranks(logits, deltas)
    best = ranks.flatten(1).topk(num_candidates if padded else min(num_candidates, ranks[0].numel()), dim=1)
    scores = _scores_at(best.values, deltas)  # [B, N]
    anchor_indices, labels = best.indices // num_classes, best.indices % num_classes
    # Sliced after the gather: the ONNX exporter drops a slice before it, and OpenVINO then rejects the shapes.
    best_deltas = deltas.gather(1, anchor_indices[..., None].expand(-1, -1, deltas.shape[2]))[..., :4].float()
    return Candidates(clip(decode(best_deltas, anchors[anchor_indices]), sizes), scores, labels)


@torch.no_grad()
def find_regions(predictions: Predictions, anchors: Tensor, sizes: Tensor, num_regions: int) -> Regions:
    """Returns the `num_regions` best anchors of each image, ranked by the score of their best class.

    They are decoded and clipped as in `detect`.
    """
    logits, deltas = predictions
    ranks = _ranks(logits, deltas)
    best = ranks.amax(dim=2).topk(min(num_regions, ranks.shape[1]), dim=1).indices  # [B, N]
    ranks, deltas = (values.gather(1, best[..., None].expand(-1, -1, values.shape[2])) for values in (ranks, deltas))
    boxes = decode(deltas[..., :4].float(), anchors[best])
    return Regions(clip(boxes, sizes), _scores_at(ranks, deltas))


def candidates_in(regions: Regions, num_candidates: int) -> Candidates:
    """Returns the `num_candidates` top-scoring (region, class) pairs of each image."""
    num_classes = regions.scores.shape[2]
    best = regions.scores.flatten(1).topk(min(num_candidates, regions.scores[0].numel()), dim=1)
    boxes = regions.boxes.gather(1, (best.indices // num_classes)[..., None].expand(-1, -1, 4))
    return Candidates(boxes, best.values, best.indices % num_classes)


def _ranks(logits: Tensor, deltas: Tensor) -> Tensor:
    """Returns numbers [B, A, C] that sort like the scores, so that `_scores_at` is needed only for the best."""
    if deltas.shape[2] == 4:
        return logits
    return SCORE_POWER * F.logsigmoid(logits.float()) + (1 - SCORE_POWER) * F.logsigmoid(deltas[..., 4:].float())


def _scores_at(ranks: Tensor, deltas: Tensor) -> Tensor:
    return ranks.float().sigmoid() if deltas.shape[2] == 4 else ranks.exp()


def lowest_class_score(threshold: float, iou_branch: bool) -> float:
    """Returns the class score that a detection above `threshold` must exceed, whatever its predicted IoU."""
    return threshold ** (1 / SCORE_POWER) if iou_branch else threshold


@torch.no_grad()
def suppress(candidates: Candidates, sizes: Tensor, settings: DetectionSettings = DEFAULT_DETECTION) -> Detections:
    """Returns the `candidates` that remain after NMS, as in `detect`. Boxes must lie within `sizes` [B, 2]."""
    boxes, scores, labels = candidates
    valid = (scores > settings.threshold) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    step = sizes.max().double() + 1
    is_at_once = boxes.device.type != "cpu" and boxes.shape[1] <= MOST_AT_ONCE
    survivors = survivors_at_once if is_at_once else survivors_by_image
    kept = valid & survivors(candidates, valid, step, settings.nms_iou)
    # A stable sort keeps candidates of equal score in order, so that every device gives the same result.
    ranked, order = scores.masked_fill(~kept, -1).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, : settings.max_detections], order[:, : settings.max_detections]  # [B, K]
    is_detection = ranked >= 0  # the rest is padding
    return Detections(
        boxes=boxes.gather(1, order[..., None].expand(-1, -1, 4)) * is_detection[..., None],
        scores=ranked * is_detection,
        labels=labels.gather(1, order).masked_fill(~is_detection, -1),
    )


def survivors_by_image(candidates: Candidates, valid: Tensor, step: Tensor, nms_iou: float) -> Tensor:
    """Marks the `valid` candidates that survive NMS within their image and class: bool [B, N].

    One call to NMS serves several groups (here, the classes of one image; in survivors_at_once, those of several
    images): each group's boxes are shifted by a different multiple of `step`, which is larger than any image side, so
    boxes of different groups never overlap. The shifts are float64, because with 16 images x 80 classes, float32 would
    round the boxes of the last groups to 1/8 pixel.
    """
    kept = torch.zeros_like(valid)
    for image, (boxes, scores, labels) in enumerate(zip(*candidates, strict=True)):
        rows = valid[image].nonzero().squeeze(1)
        shifted = boxes[rows].double() + (labels[rows] * step)[:, None]
        ranks = scores[rows].double()
        if len(rows) > MOST_ON_GPU:  # NMS on the CPU needs no memory for pairs, and gives the same result
            shifted, ranks = shifted.cpu(), ranks.cpu()
        kept[image, rows[nms(shifted, ranks, nms_iou).to(rows.device)]] = True
    return kept


def survivors_at_once(candidates: Candidates, valid: Tensor, step: Tensor, nms_iou: float) -> Tensor:
    """Does what survivors_by_image does, but for several images per NMS call, so that the host waits less often.

    The result is meaningless for candidates that are not `valid`.
    """
    boxes, scores, labels = candidates
    groups = labels + (labels.max() + 1) * torch.arange(len(boxes), device=boxes.device)[:, None]
    shifted = boxes.double() + (groups * step)[..., None]
    # An invalid candidate ranks behind all valid ones, so it suppresses none of them.
    ranks = scores.masked_fill(~valid, -1).double()
    kept = torch.zeros_like(valid)
    num_images = max(1, MOST_AT_ONCE // valid.shape[1])
    for parts in zip(*(tensor.split(num_images) for tensor in (kept, shifted, ranks)), strict=True):
        part_kept, part_boxes, part_ranks = (part.flatten(0, 1) for part in parts)
        # Assigning part_kept[...] = True would copy True to the GPU and wait for the copy.
        part_kept.index_fill_(0, nms(part_boxes, part_ranks, nms_iou), True)
    return kept
