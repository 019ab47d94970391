"""Resumes a run: finds the newest intact checkpoint, and refuses settings that would change the run's numbers."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.checkpoints.checkpoint import Checkpoint, load_run, save_checkpoint
from retinanet.coco.json_values import is_id
from retinanet.detector.settings import STAGES, Architecture
from retinanet.runtime.errors import UserError
from retinanet.runtime.json_files import read_json
from retinanet.runtime.printable import counted
from retinanet.settings.options import flat, options_of, values_read, with_values
from retinanet.settings.shared import EXIF, RAW, Anchors
from retinanet.settings.train import MAY_CHANGE, RECORD, STRONG, TrainSettings, differences, earlier_settings

LAST, PREVIOUS = "last.pt", "previous.pt"


class Facts(NamedTuple):
    """The circumstances, besides the settings, that affect a run's numbers."""

    device: str  # cpu or cuda
    precision: str
    compiled: bool
    train_fingerprint: str  # hash of the annotation file, like val_fingerprint
    val_fingerprint: str
    batch_size: int  # per rank
    num_ranks: int


class SavedRun(NamedTuple):
    path: Path
    checkpoint: Checkpoint
    state: dict[str, Any]  # from TrainingState.to_plain
    facts: Facts

    def random_stages(self) -> list[str]:
        """Returns the backbone's stages that started from random weights; [] if an earlier version saved the run."""
        saved = self.state.get("random_stages")
        return [stage for stage in STAGES if isinstance(saved, list) and stage in saved]


def save_run(checkpoint: Checkpoint, state: dict[str, Any], facts: Facts, folder: Path) -> None:
    """Writes last.pt, and keeps its predecessor as previous.pt.

    Raises UserError if writing fails; both files then stay as they were.
    """
    run = {"state": state, "facts": facts._asdict()}
    save_checkpoint(checkpoint, folder / LAST, run, previous=folder / PREVIOUS)


def newest_run(folder: Path) -> tuple[SavedRun | None, list[str]]:
    """Returns the newest state in `folder` that a run can resume from, if any, and a message for each unusable file."""
    complaints: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                return load_saved(path), complaints
            except UserError as error:
                complaints.append(str(error))
    return None, complaints


def with_saved_exif(settings: TrainSettings, folder: Path) -> TrainSettings:
    """Returns the settings with the --exif of the run that is saved in `folder`, unless the flag was given.

    The sets are read before the checkpoint, so the flag is taken from the run's record.
    """
    is_saved = (folder / LAST).exists() or (folder / PREVIOUS).exists()
    if "exif" in settings.given or not is_saved or not (folder / RECORD).exists():
        return settings
    record = read_json(folder / RECORD)
    recorded = record.get("settings") if isinstance(record, dict) else None
    exif = recorded.get("exif", RAW) if isinstance(recorded, dict) else RAW
    return with_values(settings, {"exif": exif}) if exif in EXIF else settings


def with_saved_sides(settings: TrainSettings, saved: SavedRun) -> TrainSettings:
    """Returns the settings with the `saved` run's --train_sides, if --recipe strong sets them and the flag isn't given.

    The recipe's default depends on --cache, which may change. Raises UserError if --cache doesn't allow these sides.
    """
    name, old = "train_sides", saved.checkpoint.settings
    if settings.recipe != STRONG or name in settings.given or name not in old:
        return settings
    settings = with_values(settings, values_read(TrainSettings, {name: old[name]}, saved.path))
    settings.speed.check(settings.data)
    return settings


def load_saved(path: Path) -> SavedRun:
    checkpoint, run = load_run(path)
    facts = run.get("facts")
    state = run.get("state")
    if not isinstance(state, dict) or not isinstance(facts, dict) or facts.keys() != set(Facts._fields):
        raise UserError(
            f"{path}: a checkpoint without the state of its run, which only last.pt and previous.pt have. Use one of "
            "them."
        )
    kinds = Facts.__annotations__
    if any(type(facts[name]) is not kind for name, kind in kinds.items()) or not is_id(state.get("iteration")):
        raise UserError(f"{path}: the state of its run is broken. Move the file away.")
    return SavedRun(path, checkpoint, state, Facts(**facts))


def require_same_run(saved: SavedRun, settings: TrainSettings, facts: Facts) -> None:
    """Raises UserError if `settings` or `facts` would lead to numbers that differ from the saved run's.

    For settings that were added after a run was saved, see earlier_settings.
    """
    free = MAY_CHANGE - {"epochs"} if settings.optimisation.depends_on_epochs else MAY_CHANGE
    old, new = earlier_settings(settings.network.weights) | saved.checkpoint.settings, flat(settings)
    of_network = {*Architecture._fields, *options_of(Anchors)}  # earlier versions hard-coded some of them
    differing: list[tuple[str, Any]] = [*differences(saved.checkpoint.architecture, settings.network.architecture)]
    for name in sorted((old.keys() | new.keys()) - free - of_network):
        if old.get(name) != new.get(name):
            differing.append((f"--{name} {old.get(name)}", new.get(name)))
    for name in ("device", "precision"):
        if getattr(saved.facts, name) != getattr(facts, name):
            differing.append((f"{name} {getattr(saved.facts, name)}", getattr(facts, name)))
    compile_then, compile_now = ("on" if run.compiled else "off" for run in (saved.facts, facts))
    if compile_then != compile_now:
        differing.append((f"--compile {compile_then}", compile_now))
    images_then, images_now = (run.batch_size * run.num_ranks for run in (saved.facts, facts))
    if images_then != images_now and saved.facts.num_ranks == facts.num_ranks:
        differing.append((f"--batch_size {saved.facts.batch_size}", facts.batch_size))
    if differing:
        both = "; ".join(f"its run has {old_flag}, this command has {new_value}" for old_flag, new_value in differing)
        same = "the same values" if len(differing) > 1 else "the same value"
        raise UserError(
            f"{saved.path}: {both}, which changes the numbers. Use {same}, or start a new run without --resume or in "
            "another --output_path."
        )
    epoch, iteration = saved.checkpoint.epoch, saved.state["iteration"]
    if (least := epoch + (iteration > 0)) > settings.optimisation.epochs:
        trained = counted(epoch, "epoch") + (f" and {counted(iteration, 'iteration')}" if iteration else "")
        raise UserError(
            f"{saved.path}: its run has trained {trained}, which is more than --epochs {settings.optimisation.epochs}. "
            f"Set --epochs to {least} or more."
        )
    for name in ("train", "val"):
        if getattr(saved.facts, f"{name}_fingerprint") != getattr(facts, f"{name}_fingerprint"):
            raise UserError(
                f"{saved.path}: the annotation file of the {name} set has changed since. Put the old file back, or "
                "start a new run without --resume."
            )
    if images_then != images_now and saved.state["iteration"]:
        raise UserError(
            f"{saved.path}: was saved within an epoch by {counted(saved.facts.num_ranks, 'process')} with "
            f"{counted(images_then, 'image')} per step in total, not {facts.num_ranks} with {images_now}. Start the "
            "same number of processes, or set a --batch_size that gives the same total, which can change only between "
            "epochs."
        )
