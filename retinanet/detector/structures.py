"""Defines the tuples of dense, padded tensors that the parts of the detector exchange.

Shape letters, the same in every file:
    B images in a batch, M boxes in the image with the most boxes, A anchors, C classes, K detections per image,
    H and W the height and width of the padded network input.
Boxes are (x1, y1, x2, y2), float32, in pixels of the network's input. Sizes are (height, width). Labels are 0..C-1,
without a background class; -1 marks padding, and -2 a crowd region, which is not an object. A cell is one position of a
pyramid level, on which several anchors are centred.
"""

from typing import NamedTuple

from torch import Tensor

# The mean and standard deviation of ImageNet's colour channels, in 0..255, as the published weights expect.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
CROWD = -2  # the label of a crowd region


class Targets(NamedTuple):
    """The objects and crowd regions of a batch; padding rows have label -1 and a box of zeros. M is at least 1."""

    boxes: Tensor  # float32 [B, M, 4]
    labels: Tensor  # int64 [B, M]


class Predictions(NamedTuple):
    """The network's raw output, one row per anchor."""

    logits: Tensor  # [B, A, C]
    deltas: Tensor  # [B, A, 4], or [B, A, 5] with an IoU branch: the last is the logit of the IoU with the object


class Candidates(NamedTuple):
    """N possible detections per image, before the threshold and NMS."""

    boxes: Tensor  # float32 [B, N, 4]
    scores: Tensor  # float32 [B, N]
    labels: Tensor  # int64 [B, N]


class Regions(NamedTuple):
    """N regions per image that may hold an object, with a score for each class, before the threshold and NMS."""

    boxes: Tensor  # float32 [B, N, 4]
    scores: Tensor  # float32 [B, N, C]


class Losses(NamedTuple):
    """The two losses of a batch, scalars that require gradients."""

    classification: Tensor
    regression: Tensor


class Detections(NamedTuple):
    """The top detections of each image in descending order of score; padding has label -1, score 0 and a zero box."""

    boxes: Tensor  # float32 [B, K, 4]
    scores: Tensor  # float32 [B, K]
    labels: Tensor  # int64 [B, K]


class AnchorMatches(NamedTuple):
    """The object of each anchor, and the anchor's role: foreground, background, or ignored if it is neither."""

    objects: Tensor  # int64 [B, A], 0..M-1; meaningless where the anchor is not foreground
    foreground: Tensor  # bool [B, A], True if the anchor must find its object
    background: Tensor  # bool [B, A], True if the anchor must find nothing
