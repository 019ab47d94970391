"""A checkpoint is plain data that rebuilds its model; with the training's state beside it, also its run."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.backbone import DEPTHS
from retinanet.errors import UserError
from retinanet.model import HEAD_NORMS, NORM_GROUPS, RetinaNet
from retinanet.torchfiles import load_file, save_file

FORMAT = "retinanet 1"
RESUMABLE = "run"  # the key of what only --resume needs


class Checkpoint(NamedTuple):
    """What a checkpoint file holds, as a dict of these names and `format`."""

    model: dict[str, Tensor]
    depth: int
    channels: int
    class_names: list[str]
    category_ids: list[int]
    min_side: int
    max_side: int
    batch_size: int
    epoch: int  # epochs finished
    settings: dict[str, Any]  # the run's flags
    # Older files lack what follows; the defaults are what they hold.
    head_norm: str = "none"
    level_code: bool = False
    ema: dict[str, Tensor] | None = None  # as `model`, averaged over the training; None in a run without


def save_checkpoint(
    checkpoint: Checkpoint, path: Path, run: dict[str, Any] | None = None, *, previous: Path | None = None
) -> None:
    """Write `checkpoint`, with the `run` that goes on from it if given, whole or not at all.

    `previous`: see written_whole. UserError where the disk is full or the folder can't be written to.
    """
    more = {} if run is None else {RESUMABLE: run}
    try:
        save_file({"format": FORMAT, **checkpoint._asdict(), **more}, path, previous=previous)
    except OSError as fault:
        raise UserError(f"{path}: can't be written ({fault}). Make room, or choose another --output_path.") from fault


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`; UserError where the file is missing, damaged, holds code or something else."""
    return load_run(path)[0]


def load_run(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint in `path` and the run to go on with, empty where it was not saved for that. UserError as above."""
    content = load_file(path, "a checkpoint of train.py")
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise UserError(f"{path}: not a checkpoint of train.py. Give one that it wrote, such as model_final.pt.")
    run = content.pop(RESUMABLE, {})
    allowed = set(Checkpoint._fields)
    is_whole = allowed - set(Checkpoint._field_defaults) <= content.keys() <= allowed
    if not is_whole or not _is_sound(Checkpoint(**content)) or not isinstance(run, dict):
        raise UserError(f"{path}: a checkpoint with parts missing or broken. Was it written by another version?")
    return Checkpoint(**content), run


def build_model(
    checkpoint: Checkpoint, path: Path, learn_statistics: bool = False, *, averaged: bool = False
) -> RetinaNet:
    """The model that `checkpoint`, from `path`, holds, with its `averaged` weights if it has them.

    UserError where its weights don't fit or aren't finite.
    """
    model = RetinaNet(
        len(checkpoint.class_names),
        checkpoint.depth,
        checkpoint.channels,
        learn_statistics=learn_statistics,
        head_norm=checkpoint.head_norm,
        level_code=checkpoint.level_code,
    )
    try:
        model.load_state_dict(checkpoint.ema if averaged and checkpoint.ema else checkpoint.model)
    except RuntimeError as fault:
        first = "; ".join(line.strip() for line in str(fault).splitlines()[:2])[:200]
        raise UserError(
            f"{path}: its weights don't fit its depth {checkpoint.depth}, channels and classes ({first}). Give another "
            "checkpoint."
        ) from fault
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise UserError(f"{path}: holds weights that are not finite; its training diverged. Give another checkpoint.")
    return model


def _is_sound(checkpoint: Checkpoint) -> bool:
    """Whether every part has the type and range that its use needs."""
    numbers = (checkpoint.channels, checkpoint.min_side, checkpoint.max_side, checkpoint.batch_size)
    names, ids = checkpoint.class_names, checkpoint.category_ids
    return (
        type(checkpoint.depth) is int
        and checkpoint.depth in DEPTHS
        and all(type(number) is int and number > 0 for number in numbers)
        and checkpoint.min_side <= checkpoint.max_side
        and type(checkpoint.head_norm) is str
        and checkpoint.head_norm in HEAD_NORMS
        and (checkpoint.head_norm == "none" or checkpoint.channels % NORM_GROUPS == 0)
        and type(checkpoint.level_code) is bool
        and isinstance(names, list)
        and isinstance(ids, list)
        and all(isinstance(name, str) for name in names)
        and all(type(category_id) is int for category_id in ids)
        and len(names) == len(ids) == len(set(ids)) > 0
        and type(checkpoint.epoch) is int
        and isinstance(checkpoint.settings, dict)
        and all(isinstance(name, str) for name in checkpoint.settings)
        and isinstance(checkpoint.model, dict)
        and isinstance(checkpoint.ema, dict | None)
        and all(isinstance(value, Tensor) and not value.is_complex() for value in checkpoint.model.values())
        and all(isinstance(value, Tensor) and not value.is_complex() for value in (checkpoint.ema or {}).values())
    )
