"""Exports a checkpoint to a file for other programs, and verifies the file."""

import time
from pathlib import Path

import torch
from torch import Tensor

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint, save_as_safetensors
from retinanet.checkpoints.output_folder import best_and_final_line
from retinanet.coco.annotations import has_objects, require_same_classes
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Candidates
from retinanet.evaluation.coco_table import require_backend
from retinanet.evaluation.detect_set import fastest_form
from retinanet.evaluation.views import look_with
from retinanet.export.onnx_file import onnx_bytes
from retinanet.export.verify import compare
from retinanet.predict.networks import CANDIDATES, DETECTIONS, outputs_of, session_of
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import require_writable, written_whole
from retinanet.settings.export import ExportSettings
from retinanet.settings.shared import installed_backends

CPU = torch.device("cpu")


def export(settings: ExportSettings) -> int:
    """Exports the checkpoint. Returns the exit code: 0 if the file was written, 1 if its verification failed."""
    require_writable(settings.file)
    checkpoint = load_checkpoint(settings.checkpoint_path)
    if line := best_and_final_line(settings.checkpoint_path):
        say(line)
    model = build_model(checkpoint, settings.checkpoint_path, averaged=True).eval()
    if settings.format == "safetensors":
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        export_safetensors(checkpoint, settings.file)
        return 0
    dataset = None if settings.verification.no_verify else load_val_set(settings, checkpoint)
    started = time.monotonic()
    content = onnx_bytes(model, checkpoint, settings.detection)
    say(f"Exported {settings.checkpoint_path} in {time.monotonic() - started:.0f} s")
    faults = [] if dataset is None else verified(settings, model, content, dataset, checkpoint.batch_size)
    if faults:
        say(f"Not written: {'; '.join(faults)}")
        return 1
    with file_error_explained(settings.file, "can't be written", "Make room, or choose another --output_path."):
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(settings.file, "wb") as file:
            file.write(content)
    say(
        f"Written: {settings.file}, {len(content) / 1e6:.1f} MB. Its inputs are images (uint8, batch x 3 x height x "
        "width, sides multiples of 32) and sizes (int64, height and width without padding); docs/export.md has more"
    )
    return 0


def export_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    save_as_safetensors(checkpoint, path)
    written, weights = load_checkpoint(path), checkpoint.ema or checkpoint.model
    assert written._replace(model={}) == checkpoint._replace(model={}, ema=None), "it must rebuild the same network"
    assert all(torch.equal(written.model[name], weight) for name, weight in weights.items())
    say(f"Written: {path} and {path.with_suffix('.json')}, {len(weights)} tensors, read again and equal")


def load_val_set(settings: ExportSettings, checkpoint: Checkpoint) -> CocoDataset:
    """Loads the set to verify on. Raises UserError if the set or a COCO backend is missing, or the classes differ."""
    try:
        annotations, dataset = load_set(
            settings.verification.coco_path,
            settings.verification.set_name,
            min_side=checkpoint.min_side,
            max_side=checkpoint.max_side,
            max_pixels=settings.verification.max_pixels,
            exif=checkpoint.exif,
            white_level=checkpoint.white_level,
        )
        if has_objects(annotations):
            require_backend(next(iter(installed_backends()), "auto"))
    except UserError as fault:
        raise UserError(f"{fault} The file is verified on these images; --no_verify skips that.") from None
    require_same_classes(annotations, checkpoint.class_names, checkpoint.category_ids, settings.checkpoint_path)
    return dataset


def verified(
    settings: ExportSettings, model: RetinaNet, content: bytes, dataset: CocoDataset, batch_size: int
) -> list[str]:
    """Logs how the file's detections differ from the checkpoint's; returns the differences that are too large."""
    network = fastest_form(model, CPU, torch.float32, settings.detection.threshold)
    ours = look_with(network, settings.detection.num_candidates, device=CPU, precision=torch.float32)
    session = session_of(content, "cpu")

    def theirs(images: Tensor, sizes: Tensor) -> tuple[Candidates, Candidates]:
        outputs = outputs_of(session, (*DETECTIONS, *CANDIDATES), images, sizes)
        return Candidates(*outputs[: len(DETECTIONS)]), Candidates(*outputs[len(DETECTIONS) :])

    comparison = compare(ours, theirs, dataset, batch_size, settings.detection)
    aps = "" if comparison.aps is None else f"; AP {comparison.aps[0]:.4f} and {comparison.aps[1]:.4f}"
    say(
        f"Verified on {comparison.num_images} images: {comparison.counts[0]} detections of the checkpoint, "
        f"{comparison.counts[1]} of the file; boxes within {comparison.pixels:.2g} px, "
        f"scores within {comparison.score:.2g}{aps}"
    )
    return comparison.faults
