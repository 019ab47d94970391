"""Checks a command's inputs before PyTorch is imported, so that a wrong path is reported at once."""

from typing import Any

from retinanet.coco.folder import find_annotation_file
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.settings.check_labels import CheckLabelsSettings
from retinanet.settings.evaluate import EvaluateSettings
from retinanet.settings.export import ExportSettings
from retinanet.settings.options import with_values
from retinanet.settings.predict import PredictSettings
from retinanet.settings.shared import BEST, FINAL
from retinanet.settings.train import TrainSettings


def checked_inputs(settings: Any) -> Any:
    """Returns the settings, with a missing default checkpoint replaced by the run's other one (best or final).

    Without --set_name, result files are evaluated on the first set named in the records next to them.
    Raises UserError if a checkpoint or an annotation file is missing.
    """
    match settings:
        case TrainSettings():
            for set_name in (settings.data.train_set, settings.data.val_set):
                find_annotation_file(settings.data.coco_path, set_name)
        case CheckLabelsSettings():
            find_annotation_file(settings.training.data.coco_path, settings.training.data.train_set)
        case EvaluateSettings():
            settings = _with_recorded_set(settings) if settings.result_files else _with_checkpoint(settings)
            find_annotation_file(settings.coco_path, settings.name_of_set)
        case PredictSettings() | ExportSettings():
            settings = _with_checkpoint(settings)
    return settings


def _with_recorded_set(settings: EvaluateSettings) -> EvaluateSettings:
    from retinanet.coco.results import recorded_set  # not above, because --help would have to wait for NumPy

    return with_values(settings, {"set_name": settings.set_name or recorded_set(settings.result_files)})


def _with_checkpoint(settings: Any) -> Any:
    path = settings.checkpoint_path
    if path.is_dir():
        raise UserError(f"{path}: is a folder. Set --checkpoint_path to a file in it, such as {path / BEST}.")
    if path.exists():
        return settings
    is_default = path == type(settings).checkpoint_path
    other = path.with_name(FINAL if path.name == BEST else BEST)
    if is_default and other.exists():
        say(f"{path} does not exist, so {other} is used")
        return with_values(settings, {"checkpoint_path": other})
    results = getattr(settings, "results_path", None)
    if is_default and results and results.is_file():
        raise UserError(
            f"--results_path {results}: names the file to write, but there is no checkpoint {path} to detect with. To "
            f"evaluate the file as it is, use --from_results {results}; to detect, set --checkpoint_path."
        )
    raise UserError(f"{path}: no such file. Set --checkpoint_path to a checkpoint of train.py.")
