"""Expresses the whole detector, from uint8 images to detections, as one graph that PyTorch's exporter can translate."""

from typing import NamedTuple

import torch
from torch import Tensor, library, nn

from retinanet.detector.anchors import anchor_grids
from retinanet.detector.detect import find_candidates, nms
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates, Detections


class Outputs(NamedTuple):
    """Holds the outputs of an exported file, in file order."""

    boxes: Tensor  # float32 [B, K, 4]; the first three outputs are the detections, in the form of Detections
    scores: Tensor  # float32 [B, K]
    labels: Tensor  # int64 [B, K]
    candidate_boxes: Tensor  # float32 [B, N, 4], before NMS; if an input has fewer candidates, the rest score 0
    candidate_scores: Tensor  # float32 [B, N]
    candidate_labels: Tensor  # int64 [B, N]


class DetectorGraph(nn.Module):
    """Maps images, uint8 [B, 3, H, W], and sizes, int64 [B, 2], to Outputs.

    The graph is the network followed by `detect`, except that NMS is a custom operator. H and W are multiples of 32;
    the sizes exclude padding. In the shapes of Outputs, N is `num_candidates`, and K is the smaller of N and
    `max_detections`.
    """

    def __init__(self, model: RetinaNet, settings: DetectionSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def forward(self, images: Tensor, sizes: Tensor) -> Outputs:
        predictions = self.model(images)
        height, width = images.shape[2:]
        grids = anchor_grids(height, width, self.model.architecture.anchors)
        anchors = torch.cat([grid.reshape(-1, 4) for grid in grids])
        # The graph has the same output shapes for all inputs, however small.
        candidates = find_candidates(predictions, anchors, sizes, self.settings.num_candidates, padded=True)
        return Outputs(*self._suppressed(candidates, predictions.logits.shape[2]), *candidates)

    def _suppressed(self, candidates: Candidates, num_classes: int) -> Detections:
        """Returns the same detections as `suppress`."""
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
    """Returns a mask [B, N], with 1 for the `boxes` [B, N, 4] that survive NMS by class, and 0 for the others.

    Only boxes with `class_scores` [B, C, N] above `threshold` take part. torch.export can't trace NMS, so the graph
    contains this operator, which becomes ONNX's NonMaxSuppression in the file.
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
