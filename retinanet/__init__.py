"""RetinaNet: train on a COCO-format data set, evaluate, look at the results, check a submission, use the detector."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.predict.detector import Detector, ImageDetections

__all__ = ["Detector", "ImageDetections"]


def __getattr__(name: str) -> Any:
    """The detector as a Python object; imported when it is asked for, since PyTorch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from retinanet.predict import detector

    return getattr(detector, name)
