"""Expresses the whole detector as one graph, from uint8 images to detections, which PyTorch's exporter can read."""

from typing import NamedTuple

import torch
from torch import Tensor, library, nn
from torch.nn import functional as F
from torchvision.ops import nms

from retinanet.detector.anchors import STRIDES, cell_anchors
from retinanet.detector.boxes import clip, decode
from retinanet.detector.detect import SCORE_POWER
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates, Detections


class Outputs(NamedTuple):
    """The outputs of the file, in its order."""

    boxes: Tensor  # float32 [B, K, 4], the detections, as Detections has them
    scores: Tensor  # float32 [B, K]
    labels: Tensor  # int64 [B, K]
    candidate_boxes: Tensor  # float32 [B, N, 4], before NMS; where an input has fewer than N, the others score 0
    candidate_scores: Tensor  # float32 [B, N]
    candidate_labels: Tensor  # int64 [B, N]


class DetectorGraph(nn.Module):
    """images uint8 [B, 3, H, W] and sizes int64 [B, 2] to Outputs, with K `max_detections` and N `num_candidates`.

    As `detect` after the network, with tensors for all that depends on H and W. H and W are multiples of 32; sizes are
    those without padding.
    """

    def __init__(self, model: RetinaNet, settings: DetectionSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        for level, stride in enumerate(STRIDES):
            self.register_buffer(f"cell{level}", cell_anchors(stride, model.architecture.anchors))

    def forward(self, images: Tensor, sizes: Tensor) -> Outputs:
        levels = self.model.levels(images)
        logits = torch.cat([self.model.classification_head(level) for level in levels], dim=1)
        deltas = torch.cat(self.model.deltas_of(levels), dim=1)
        anchors = self._anchors(levels)
        num_classes = logits.shape[2]
        ranks = logits
        if self.model.architecture.iou_branch:
            ranks = SCORE_POWER * F.logsigmoid(logits) + (1 - SCORE_POWER) * F.logsigmoid(deltas[..., 4:])
        # Rows that nothing can be: small inputs have fewer candidates than are taken.
        count = self.settings.num_candidates
        best = F.pad(ranks.flatten(1), (0, count), value=-1e4).topk(count, dim=1)
        scores = best.values.exp() if self.model.architecture.iou_branch else best.values.sigmoid()  # [B, N]
        labels = best.indices % num_classes
        rows = torch.minimum(best.indices // num_classes, torch.tensor(anchors.shape[0] - 1))
        boxes = clip(decode(deltas[..., :4].gather(1, rows[..., None].expand(-1, -1, 4)), anchors[rows]), sizes)
        candidates = Candidates(boxes, scores, labels)
        return Outputs(*self._suppressed(candidates, num_classes), *candidates)

    def _anchors(self, levels: list[Tensor]) -> Tensor:
        """As anchors_for: [A, 4]."""
        parts = []
        for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            y = (torch.arange(level.shape[2], dtype=torch.float64) + 0.5) * stride
            x = (torch.arange(level.shape[3], dtype=torch.float64) + 0.5) * stride
            y, x = y[:, None].expand(-1, level.shape[3]), x[None].expand(level.shape[2], -1)
            centres = torch.stack([x, y, x, y], dim=-1)  # [rows, columns, 4]
            parts.append((centres[:, :, None] + getattr(self, f"cell{number}")).float().reshape(-1, 4))
        return torch.cat(parts)

    def _suppressed(self, candidates: Candidates, num_classes: int) -> Detections:
        """As `suppress`."""
        boxes, scores, labels = candidates
        threshold = self.settings.threshold
        valid = (scores > threshold) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
        of_class = labels[:, None] == torch.arange(num_classes)[None, :, None]  # [B, C, N]
        class_scores = torch.where(of_class & valid[:, None], scores[:, None], -1.0)
        kept = torch.ops.retinanet.nms_by_class(boxes, class_scores, self.settings.nms_iou, threshold) > 0
        most = min(self.settings.max_detections, self.settings.num_candidates)
        ranked, order = torch.where(kept & valid, scores, -1.0).topk(most, dim=1)
        found = ranked >= 0
        return Detections(
            boxes=boxes.gather(1, order[..., None].expand(-1, -1, 4)) * found[..., None],
            scores=ranked * found,
            labels=torch.where(found, labels.gather(1, order), -1),
        )


@library.custom_op("retinanet::nms_by_class", mutates_args=())
def nms_by_class(boxes: Tensor, class_scores: Tensor, nms_iou: float, threshold: float) -> Tensor:
    """Which of `boxes` [B, N, 4] survive NMS among the `class_scores` [B, C, N] above the threshold: float [B, N].

    The exporter knows no NMS, so this stands in the graph for ONNX's.
    """
    kept = torch.zeros_like(boxes[..., 0])
    for image, of_image in enumerate(class_scores):
        for scores in of_image:
            rows = (scores > threshold).nonzero().squeeze(1)
            kept[image, rows[nms(boxes[image, rows].double(), scores[rows].double(), nms_iou)]] = 1
    return kept


@nms_by_class.register_fake
def _(boxes: Tensor, class_scores: Tensor, nms_iou: float, threshold: float) -> Tensor:
    return torch.empty_like(boxes[..., 0])
