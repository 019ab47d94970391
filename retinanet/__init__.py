"""Trains, evaluates and applies RetinaNet detectors on datasets in COCO format."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.predict.detector import Detector, ImageDetections

__version__ = "0.1.0"  # pyproject.toml reads it here
__all__ = ["Detector", "ImageDetections"]


def __getattr__(name: str) -> Any:
    """Imports the Python interface only when it is first used, because importing PyTorch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from retinanet.predict import detector

    return getattr(detector, name)
