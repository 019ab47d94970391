"""Reads and writes checkpoints: plain data to rebuild a model and, if the run's state is included, resume the run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from retinanet.checkpoints.safetensors_file import SUFFIX, write_safetensors
from retinanet.checkpoints.state_dicts import looks_like, read_file, state_in
from retinanet.checkpoints.torch_files import save_file
from retinanet.coco.json_values import is_id, is_text
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import AnchorShapes, Architecture
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.shared import EXIF, MOST_MIN_SIDE, RAW, WHITE_LEVEL, Tiles, tiles_from

FORMAT = "retinanet 1"
RESUMABLE = "run"  # the key of the state that only --resume needs
MOST_TEXT = 2**24  # characters in all class names or settings: a small file can repeat a long text a million times
MOST_ANCHORS = 1000  # per cell


class Checkpoint(NamedTuple):
    """The content of a checkpoint file, which stores these fields and `format` as a dict.

    The fields of `architecture` are stored directly in that dict, and its anchors as a nested dict.
    """

    model: dict[str, Tensor]
    architecture: Architecture
    class_names: list[str]
    category_ids: list[int]
    min_side: int
    max_side: int
    batch_size: int
    epoch: int  # epochs finished
    settings: dict[str, Any]  # the run's flags
    # Older files lack the fields below, and all of the architecture except depth and channels; the defaults then apply.
    ema: dict[str, Tensor] | None = None  # like `model`, but averaged over the run; None if the run keeps no average
    score_threshold: float | None = None  # the threshold with the best F1 in the last evaluation, if there was one

    @property
    def exif(self) -> str:
        """Returns the run's --exif; RAW for runs of earlier versions, which rotated images only to fit annotations."""
        return self.settings.get("exif", RAW)

    @property
    def white_level(self) -> int:
        return self.settings.get("white_level", WHITE_LEVEL)

    @property
    def tiles(self) -> Tiles | None:
        """Returns the tiles that the run trained on, if any."""
        return tiles_from(self.settings.get("tile"), self.settings.get("overlap"))


def save_checkpoint(
    checkpoint: Checkpoint, path: Path, run: dict[str, Any] | None = None, *, previous: Path | None = None
) -> None:
    """Atomically writes `checkpoint` and, if given, the state of its `run`.

    For `previous`, see written_whole. Raises UserError if the disk is full or the folder isn't writable.
    """
    more = {} if run is None else {RESUMABLE: run}
    with _errors_explained(path):
        save_file({**_plain(checkpoint), **more}, path, previous=previous)


def save_as_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the weights that test.py uses, and a description of the network.

    Raises UserError in the same cases as save_checkpoint, or if the safetensors package is missing.
    """
    with _errors_explained(path):
        write_safetensors(_plain(checkpoint._replace(model=checkpoint.ema or checkpoint.model, ema=None)), path)


@contextmanager
def _errors_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: can't be written ({reason}). Make room, or choose another --output_path.") from error


def _plain(checkpoint: Checkpoint) -> dict[str, Any]:
    content = checkpoint._asdict()
    network = content.pop("architecture")._asdict()
    if not network["p6_from_p5"]:
        del network["p6_from_p5"]  # so that earlier versions, which don't know it, can read the file
    return {"format": FORMAT, **content, **network, "anchors": network["anchors"]._asdict()}


def load_checkpoint(path: Path) -> Checkpoint:
    """Returns the checkpoint in `path`.

    Raises UserError if the file is missing, damaged or not a checkpoint, or contains pickled objects (see load_file).
    """
    return load_run(path)[0]


def saved_epoch(path: Path) -> int | None:
    """Returns the number of epochs finished when the checkpoint in `path` was saved; None if the file can't be read."""
    try:
        return load_checkpoint(path).epoch
    except UserError:
        return None


def load_run(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Returns the checkpoint in `path` and the state of its run, which is empty if none was saved.

    Raises UserError in the same cases as load_checkpoint.
    """
    is_exported = path.suffix == SUFFIX
    content = read_file(path, "a file of python -m retinanet.export" if is_exported else "a checkpoint of train.py")
    if not is_checkpoint(content):
        raise UserError(
            f"{path}: not a checkpoint of train.py{_what_else(content)}. Use a file that train.py wrote, such "
            "as model_final.pt."
        )
    return run_in(content, path)


def _what_else(content: object) -> str:
    """Returns a phrase that describes `content`, which isn't a checkpoint; "" if it has no named tensors."""
    state = state_in(content, "") if isinstance(content, dict) and all(isinstance(key, str) for key in content) else {}
    if not any(isinstance(value, Tensor) for value in state.values()):
        return ""
    return f", but a state dict that {looks_like(state)}; train.py --weights can load some of these"


def is_checkpoint(content: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and content.get("format") == FORMAT


def run_in(content: dict[str, Any], path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Does the same as load_run, for the `content` of a checkpoint file."""
    parts = {name: value for name, value in content.items() if name not in {"format", RESUMABLE, *Architecture._fields}}
    run = content.get(RESUMABLE, {})
    fields = set(Checkpoint._fields) - {"architecture"}
    checkpoint = None
    if missing := (fields | {"depth", "channels"}) - set(Checkpoint._field_defaults) - content.keys():
        broken = sorted(missing)
    elif unknown := parts.keys() - fields:
        broken = sorted(map(repr, unknown))
    else:
        network = {name: content[name] for name in Architecture._fields if name in content}
        if "anchors" in network:
            network["anchors"] = _anchor_shapes(network["anchors"])
        checkpoint = Checkpoint(**parts, architecture=Architecture(**network))
        broken = _broken_parts(checkpoint)
    if checkpoint is None or broken or not isinstance(run, dict):
        raise UserError(
            f"{path}: a checkpoint with parts missing or broken ({', '.join(broken or [RESUMABLE])[:200]}). If another "
            "version wrote it, use that version; otherwise use another checkpoint."
        )
    return checkpoint, run


def build_model(
    checkpoint: Checkpoint, path: Path, learn_statistics: bool = False, *, averaged: bool = False
) -> RetinaNet:
    """Builds the model of the `checkpoint` in `path`; with `averaged`, uses the averaged weights if there are any.

    Raises UserError if the weights don't fit or aren't finite.
    """
    weights = checkpoint.ema if averaged and checkpoint.ema else checkpoint.model
    _require_shapes(checkpoint, weights, path)
    model = RetinaNet(checkpoint.architecture, len(checkpoint.class_names), learn_statistics=learn_statistics)
    model.load_state_dict(weights)
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise UserError(f"{path}: holds weights that are not finite; its training diverged. Use another checkpoint.")
    return model


def _require_shapes(checkpoint: Checkpoint, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError unless `weights` fit the network that `checkpoint` describes; doesn't allocate that network."""
    architecture, num_classes = checkpoint.architecture, len(checkpoint.class_names)
    channels = architecture.channels
    shapes = {"pyramid.output7.weight": (channels, channels, 3, 3)}  # its size in the file limits `channels`
    if not _misfits(weights, shapes):
        with torch.device("meta"):
            network = RetinaNet(architecture, num_classes)
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    differing = _misfits(weights, shapes) or [f"{name} is not the network's" for name in weights.keys() - shapes.keys()]
    if differing:
        raise UserError(
            f"{path}: its weights don't fit its depth {architecture.depth}, {channels} channels, "
            f"{counted(num_classes, 'class')} and {counted(architecture.anchors.per_cell, 'anchor')} per cell "
            f"({differing[0][:200]}). Use another checkpoint."
        )


def _misfits(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    lacking = [f"{name} is missing" for name in shapes if name not in weights]
    return lacking or [
        f"{name} has the shape {list(weights[name].shape)}, not {list(shape)}"
        for name, shape in shapes.items()
        if tuple(weights[name].shape) != shape
    ]


def _broken_parts(checkpoint: Checkpoint) -> list[str]:
    """Returns the names of the parts that have a wrong type or are out of range."""
    names, ids, settings = checkpoint.class_names, checkpoint.category_ids, checkpoint.settings
    min_side, max_side, threshold = checkpoint.min_side, checkpoint.max_side, checkpoint.score_threshold
    architecture = checkpoint.architecture
    defaults = Architecture._field_defaults.items()
    if broken := [name for name, default in defaults if type(getattr(architecture, name)) is not type(default)]:
        return broken
    sound = {
        "class_names": isinstance(names, list) and _num_letters(names) <= MOST_TEXT and all(map(is_text, names)),
        "category_ids": isinstance(ids, list)
        and all(map(is_id, ids))
        and isinstance(names, list)
        and len(names) == len(ids) == len(set(ids)) > 0,
        "min_side": is_id(min_side) and 0 < min_side <= MOST_MIN_SIDE,
        "max_side": is_id(max_side) and is_id(min_side) and min_side <= max_side,
        "batch_size": is_id(checkpoint.batch_size) and checkpoint.batch_size > 0,
        "epoch": is_id(checkpoint.epoch),
        "settings": _are_flags(settings) and checkpoint.exif in EXIF and is_white_level(checkpoint.white_level),
        "model": _are_weights(checkpoint.model),
        "ema": checkpoint.ema is None or _are_weights(checkpoint.ema),
        "score_threshold": threshold is None or (type(threshold) is float and 0 <= threshold <= 1),
    }
    return architecture.impossible() + [name for name, is_sound in sound.items() if not is_sound]


def is_white_level(value: Any) -> bool:
    return is_id(value) and 0 < value <= WHITE_LEVEL


def _anchor_shapes(content: Any) -> AnchorShapes | None:
    """Returns the anchor shapes in `content`, the "anchors" entry of a file; None if they are broken."""
    if not isinstance(content, dict) or content.keys() != set(AnchorShapes._fields):
        return None
    side, ratios, scales = (content[name] for name in AnchorShapes._fields)
    if not isinstance(ratios, list | tuple) or not isinstance(scales, list | tuple):
        return None
    numbers = (side, *ratios, *scales)
    is_sound = all(type(number) in (int, float) and 1e-3 <= number <= 1e3 for number in numbers)
    if not is_sound or not 0 < len(ratios) * len(scales) <= MOST_ANCHORS:
        return None
    return AnchorShapes(side, tuple(ratios), tuple(scales))


def _are_flags(settings: Any) -> TypeGuard[dict[str, Any]]:
    """Returns True if `settings` maps flag names to plain values (numbers, strings, None) or flat lists of these."""
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        return False
    values = [value for setting in settings.values() for value in (setting if isinstance(setting, list) else [setting])]
    plain = all(value is None or isinstance(value, str | bool | float) or is_id(value) for value in values)
    return plain and _num_letters([*settings, *values]) <= MOST_TEXT


def _num_letters(values: list[Any]) -> int:
    """Counts the characters of all strings among `values`; any other value counts as 20."""
    return sum(len(value) if isinstance(value, str) else 20 for value in values)


def _are_weights(weights: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(weights, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and not value.is_complex()
        for name, value in weights.items()
    )


def checkpoint_line(checkpoint: Checkpoint, path: Path, *, averaged: bool) -> str:
    weights = "averaged weights, " if averaged and checkpoint.ema else ""
    return f"Checkpoint: {path}, {weights}depth {checkpoint.architecture.depth}, after {checkpoint.epoch} epochs"
