"""What flows between the parts: NamedTuples of dense, padded tensors.

Shape letters, the same in every file:
    B images of a batch, M most boxes in an image, A anchors, C classes, K detections kept,
    H and W the height and width of the padded network input.
Boxes are (x1, y1, x2, y2), float32, in pixels of the network's input. Sizes are (height, width).
Labels are 0..C-1 with no background class; -1 is padding, -2 a crowd region (not an object; ignored or background).
"""

from typing import NamedTuple

from torch import Tensor

# ImageNet's, in 0..255, as the published weights expect.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
CROWD = -2  # the label of a crowd region


class Targets(NamedTuple):
    """The objects of a batch; rows of padding have label -1 and a box of zeros. M is at least 1."""

    boxes: Tensor  # float32 [B, M, 4]
    labels: Tensor  # int64 [B, M]


class Predictions(NamedTuple):
    """The network's raw output, one row an anchor."""

    logits: Tensor  # [B, A, C]
    deltas: Tensor  # [B, A, 4], or [B, A, 5] of an IoU branch: the last is the logit of the IoU with the object


class Candidates(NamedTuple):
    """N possible detections an image, before the threshold and NMS."""

    boxes: Tensor  # float32 [B, N, 4]
    scores: Tensor  # float32 [B, N]
    labels: Tensor  # int64 [B, N]


class Losses(NamedTuple):
    """Two scalars that require grad."""

    classification: Tensor
    regression: Tensor


class Detections(NamedTuple):
    """The top detections of each image, by falling score; padding has label -1, score 0 and a box of zeros."""

    boxes: Tensor  # float32 [B, K, 4]
    scores: Tensor  # float32 [B, K]
    labels: Tensor  # int64 [B, K]


class AnchorMatches(NamedTuple):
    """An object for every anchor, and what the anchor is trained to find."""

    objects: Tensor  # int64 [B, A], 0..M-1; meaningless where the anchor is not foreground
    foreground: Tensor  # bool [B, A], the anchor must find its object
    background: Tensor  # bool [B, A], it must find nothing; an anchor that is neither is ignored
