"""Resuming a run: the newest checkpoint that is whole, and what must be as it was."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.checkpoints.checkpoint import Checkpoint, load_run, save_checkpoint
from retinanet.coco.json_values import is_id
from retinanet.detector.settings import STAGES, Architecture
from retinanet.runtime.errors import UserError
from retinanet.settings.options import flat, options_of, with_values
from retinanet.settings.shared import Anchors
from retinanet.settings.train import MAY_CHANGE, TrainSettings, default_statistics, differences

LAST, PREVIOUS = "last.pt", "previous.pt"


class Facts(NamedTuple):
    """What else changes a run's numbers, each with what to call it in a message."""

    device: str  # cpu or cuda
    precision: str
    compiled: bool
    train_fingerprint: str  # of the annotation files
    val_fingerprint: str
    batch_size: int  # of a rank
    num_ranks: int


class SavedRun(NamedTuple):
    path: Path
    checkpoint: Checkpoint
    state: dict[str, Any]  # TrainingState.to_plain's
    facts: Facts

    def random_stages(self) -> list[str]:
        """The stages of the backbone that were random at the start; earlier versions kept none."""
        kept = self.state.get("random_stages")
        return [stage for stage in STAGES if isinstance(kept, list) and stage in kept]


def save_run(checkpoint: Checkpoint, state: dict[str, Any], facts: Facts, folder: Path) -> None:
    """Write last.pt, and keep the one before as previous.pt. UserError where that fails; both are then as they were."""
    run = {"state": state, "facts": facts._asdict()}
    save_checkpoint(checkpoint, folder / LAST, run, previous=folder / PREVIOUS)


def newest_run(folder: Path) -> tuple[SavedRun | None, list[str]]:
    """The newest run in `folder` that can be resumed, and a message for each file that can't be used."""
    complaints: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                return load_saved(path), complaints
            except UserError as error:
                complaints.append(str(error))
    return None, complaints


def load_saved(path: Path) -> SavedRun:
    checkpoint, run = load_run(path)
    facts = run.get("facts")
    state = run.get("state")
    if not isinstance(state, dict) or not isinstance(facts, dict) or facts.keys() != set(Facts._fields):
        raise UserError(
            f"{path}: a checkpoint without the state of its training. Only last.pt and previous.pt have it."
        )
    kinds = Facts.__annotations__
    if any(type(facts[name]) is not kind for name, kind in kinds.items()) or not is_id(state.get("iteration")):
        raise UserError(f"{path}: the state of its training is broken. Move the file away.")
    return SavedRun(path, checkpoint, state, Facts(**facts))


def require_same_run(saved: SavedRun, settings: TrainSettings, facts: Facts) -> None:
    """UserError where the `settings` or `facts` would not lead to the same numbers as the saved ones.

    A run of an earlier version had the defaults of the settings that it did not know.
    """
    free = MAY_CHANGE - {"epochs"} if settings.optimisation.depends_on_epochs else MAY_CHANGE
    defaults = with_values(TrainSettings(), {"norm_statistics": default_statistics(settings.network.weights)})
    old, new = flat(defaults) | saved.checkpoint.settings, flat(settings)
    of_network = {*Architecture._fields, *options_of(Anchors)}  # earlier versions had some of them in the code
    for own, asked in differences(saved.checkpoint.architecture, settings.network.architecture):
        raise _differs(saved, own, asked)
    for name in sorted((old.keys() | new.keys()) - free - of_network):
        if old.get(name) != new.get(name):
            raise _differs(saved, f"--{name} {old.get(name)}", new.get(name))
    for name in ("device", "precision", "compiled"):
        if getattr(saved.facts, name) != getattr(facts, name):
            raise _differs(saved, f"{name} {getattr(saved.facts, name)}", getattr(facts, name))
    for name in ("train", "val"):
        if getattr(saved.facts, f"{name}_fingerprint") != getattr(facts, f"{name}_fingerprint"):
            raise UserError(
                f"{saved.path}: the annotation file of the {name} set was changed since. Put the old one back, or "
                "start a new run without --resume."
            )
    together, now = (one.batch_size * one.num_ranks for one in (saved.facts, facts))
    if together != now:
        if saved.facts.num_ranks == facts.num_ranks:
            raise _differs(saved, f"--batch_size {saved.facts.batch_size}", facts.batch_size)
        if saved.state["iteration"]:
            raise UserError(
                f"{saved.path}: was saved within an epoch by {saved.facts.num_ranks} processes with {together} images "
                f"a step together, now there are {facts.num_ranks} with {now}. Start as many, or give a --batch_size "
                "with the same total; their number can change only between epochs."
            )


def _differs(saved: SavedRun, own: str, asked: Any) -> UserError:
    return UserError(
        f"{saved.path}: its run has {own}, this command has {asked}, which changes the numbers. Give the same, or "
        "start a new run without --resume or in another --output_path."
    )
