"""Provides the detector as a Python object that takes images and returns boxes in pixels of each image."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retinanet.coco.boxes import corners_of
from retinanet.coco.results import Found
from retinanet.coco.score_thresholds import above
from retinanet.data.images import read_upright, upright
from retinanet.data.transforms import longest_at, to_tensor
from retinanet.evaluation.detect_images import Looks, detect_images
from retinanet.evaluation.views import Views
from retinanet.predict.networks import opened
from retinanet.predict.runners import ONNX, OPENVINO
from retinanet.predict.thresholds import Threshold, thresholds_of
from retinanet.runtime.device import fastest_precision
from retinanet.runtime.errors import FLAGS, UserError
from retinanet.settings.options import require_allowed
from retinanet.settings.predict import PredictSettings
from retinanet.settings.shared import MAX_PIXELS

OneImage = str | Path | bytes | IO[bytes] | np.ndarray | Tensor | Image.Image


class ImageDetections(NamedTuple):
    """Holds the n detections in an image, by descending score."""

    boxes: np.ndarray  # float32 [n, 4], (x1, y1, x2, y2) in pixels of the image
    scores: np.ndarray  # float32 [n]
    labels: np.ndarray  # int64 [n], indices into Detector.class_names
    names: list[str]  # the class name of each detection


@contextmanager
def _arguments_named() -> Iterator[None]:
    """Makes error messages name arguments (tile) instead of flags (--tile), unless a command is running."""
    try:
        yield
    except UserError as error:
        raise error if FLAGS else UserError(re.sub(r"(?<![^\s(])--(?=\w)", "", str(error))) from error


class Detector:
    """Finds objects in images with a trained RetinaNet.

        detector = Detector("output/best.pt")
        boxes, scores, labels, names = detector("street.jpg")

    `path` is a checkpoint, or a file that `python -m retinanet.export` wrote. An exported file stores its own defaults;
    its `num_candidates` can't be changed, nor can the precision of an ONNX file.

    Only detections that score above `threshold` are returned. The default is the threshold with the best F1 in the
    checkpoint's last evaluation, or 0.3 if there was none. A dict sets thresholds by class: {None: 0.3, "traffic
    light": 0.5}, where None stands for all other classes. `classes` are the names of the classes to find, by default
    all.

    `tile` is the side, in pixels, of the tiles into which large images are cut; 0 turns tiles off. Neighbouring tiles
    overlap by at least the fraction `overlap` of their side, and each image is also processed as a whole. By default,
    both settings are as in training. If training used no tiles, images are cut only if you set `tile`, and `overlap`
    then defaults to 0.2.

    `flip_test` and `test_sides` turn on test-time augmentation. These and the remaining settings work as in test.py,
    except that a `precision` of "auto" also selects bfloat16 on CPUs where it is faster.

    Calls don't change the detector, so several threads can share it. Raises UserError if a file or a setting can't be
    used.
    """

    @_arguments_named()
    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        *,
        threshold: Threshold = None,
        classes: Sequence[str] | None = None,
        tile: int | None = None,
        overlap: float | None = None,
        flip_test: bool = False,
        test_sides: Sequence[int] | None = None,
        precision: str = "auto",
        batch_size: int | None = None,
        num_candidates: int | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        overrides = {"num_candidates": num_candidates, "nms_iou": nms_iou, "max_detections": max_detections}
        flags = {
            "device": device,
            "classes": classes and [*classes],
            "tile": tile,
            "overlap": overlap,
            "test_sides": test_sides and [*test_sides],
            "precision": precision,
            "batch_size": batch_size,
            **overrides,
            "max_pixels": max_pixels,
        }
        # tolist() turns NumPy's numbers into Python's.
        require_allowed(PredictSettings, {name: np.array(value).tolist() for name, value in flags.items()})
        self.path, self.max_pixels = Path(path), max_pixels
        if self.path.suffix != ONNX:  # ONNX files always compute in their own precision
            precision = fastest_precision(precision, "cpu" if self.path.suffix == OPENVINO else device)
        file = opened(self.path, device, precision)
        self.trained, self.device = file.trained, file.device
        self.class_names, self.category_ids = file.trained.class_names, file.trained.category_ids
        self.thresholds = thresholds_of(threshold, file.trained.threshold, self.class_names, self.path)
        given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
        detection = replace(file.defaults, threshold=self.thresholds.lowest, **given)
        tiles = file.trained.tiles(tile, overlap)
        looks_flags = {"tile": tiles, "flip_test": flip_test, "test_sides": test_sides}
        self.look = file.look_for(detection, [name for name, value in looks_flags.items() if value])
        self.kept_labels = None if classes is None else self._labels_of(classes)
        trained_sides = file.trained.min_side, file.trained.max_side
        sides = [(side, longest_at(side, *trained_sides)) for side in test_sides or ()]
        self.looks = Looks(
            Views(sides or [trained_sides], flip_test, tiles),
            detection,
            batch_size or file.trained.batch_size,
        )

    @property
    def threshold(self) -> float:
        """Returns the threshold for all classes without a threshold of their own."""
        return self.thresholds.others

    def threshold_text(self) -> str:
        """Returns the thresholds of the classes to find, such as "0.3, 0.5 for traffic light"."""
        labels = range(len(self.class_names)) if self.kept_labels is None else self.kept_labels
        return self.thresholds.text(self.class_names, labels)

    def __repr__(self) -> str:
        return (
            f"Detector({str(self.path)!r}, {str(self.device)!r}, threshold={self.threshold_text()}, "
            f"classes={[self.class_names[label] for label in self.kept_labels or range(len(self.class_names))]})"
        )

    @overload
    def __call__(self, images: OneImage) -> ImageDetections: ...

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[ImageDetections]: ...

    @_arguments_named()
    def __call__(self, images: OneImage | list[Any] | tuple[Any, ...]) -> ImageDetections | list[ImageDetections]:
        """Returns the detections in an image, or in each image of a list.

        An image is the path of a file, an open file, the bytes of a file, a PIL image, a NumPy array [height, width, 3]
        in RGB or [height, width] in greyscale, or a tensor [3, height, width]; arrays and tensors are uint8.
        """
        if isinstance(images, list | tuple):
            return self._detections_in([self._tensor_of(image) for image in images])
        return self._detections_in([self._tensor_of(images)])[0]

    def read(self, source: str | Path | IO[bytes]) -> np.ndarray:
        """Reads an image file, turns it upright and applies the run's white level; returns uint8 [height, width, 3]."""
        return read_upright(source, self.max_pixels, self.trained.white_level)

    def find(self, images: Sequence[Tensor]) -> Found:
        """Returns the detections in uint8 `images` [3, h, w], sorted by image, then by descending score."""
        detections = detect_images(self.look, images, self.looks, self.device)  # above the lowest threshold
        detections = detections.at(above(detections.scores, self.thresholds.by_label[detections.labels]))
        return detections if self.kept_labels is None else detections.at(np.isin(detections.labels, self.kept_labels))

    def _detections_in(self, images: Sequence[Tensor]) -> list[ImageDetections]:
        detections = self.find(images)
        corners = corners_of(detections.boxes)
        return [
            ImageDetections(
                corners[of_image].astype(np.float32),
                detections.scores[of_image].astype(np.float32),
                detections.labels[of_image],
                [self.class_names[label] for label in detections.labels[of_image]],
            )
            for of_image in (detections.images == index for index in range(len(images)))
        ]

    def _labels_of(self, classes: Sequence[str]) -> list[int]:
        for name in classes:
            if name not in self.class_names:
                raise UserError(f"{self.path}: has no class {name!r}. Its classes are {', '.join(self.class_names)}")
        return [label for label, name in enumerate(self.class_names) if name in classes]  # names may repeat

    def _tensor_of(self, image: Any) -> Tensor:
        """Returns the image as uint8 [3, height, width]."""
        if isinstance(image, bytes):
            image = BytesIO(image)
        if isinstance(image, str | Path) or hasattr(image, "read"):
            return to_tensor(self.read(image))
        if isinstance(image, Image.Image):
            return to_tensor(upright(image, self.trained.white_level))
        # A copy is needed: PyTorch warns about read-only arrays, such as PIL's, and rejects negative strides.
        tensor = torch.as_tensor(np.array(image, order="C") if isinstance(image, np.ndarray) else image)
        if isinstance(image, np.ndarray):
            tensor = tensor[None].expand(3, -1, -1) if tensor.dim() == 2 else tensor.movedim(-1, 0)
        if tensor.dtype != torch.uint8 or tensor.dim() != 3 or len(tensor) != 3 or not tensor.numel():
            raise TypeError(
                f"an image of shape {list(np.shape(image))} and type {image.dtype}: pass uint8, [height, width, 3] as "
                "an array or [3, height, width] as a tensor"
            )
        return tensor.cpu()
