"""Exports a checkpoint to a file for other programs, and verifies the file."""

import importlib.util
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint, save_as_safetensors
from retinanet.checkpoints.output_folder import best_and_final_line
from retinanet.coco.annotations import has_objects, require_same_classes
from retinanet.coco.score_thresholds import above
from retinanet.data.batches import Batch, collate
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.detector.detect import suppress
from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Candidates, Detections
from retinanet.evaluation.analysis import Analysis, analyse
from retinanet.evaluation.coco_table import require_backend
from retinanet.evaluation.counts import count_by_class
from retinanet.evaluation.detect_set import batches_of_set, detect_with, fastest_form
from retinanet.evaluation.views import Look, Views, look_with
from retinanet.export.int8 import Quantiser
from retinanet.export.int8_search import Trial, disagreement, trials
from retinanet.export.onnx_file import metadata_of, onnx_bytes
from retinanet.export.openvino_file import WEIGHTS, openvino_model, write_openvino
from retinanet.export.verify import compare
from retinanet.predict.networks import CANDIDATES, DETECTIONS, look_of, trained_of
from retinanet.predict.runners import Runner, onnx_runner, openvino_runner
from retinanet.reports.tables import aligned
from retinanet.runtime.console import say
from retinanet.runtime.device import cpu_features, cpu_name
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import require_writable, size_text, written_whole
from retinanet.runtime.printable import counted
from retinanet.settings.export import ONNX, OPENVINO, SAFETENSORS, ExportSettings
from retinanet.settings.shared import installed_backends

CPU = torch.device("cpu")
NUM_CALIBRATION = 300  # images
NUM_HARM = 16  # of these, the images on which the harm of quantising a single layer is measured
TIMED_IMAGES, TIMED_ROUNDS = 8, 5
MOST_NAMED = 4  # layers in a line


def export(settings: ExportSettings) -> int:
    """Exports the checkpoint. Returns the exit code: 0 if the file was written, 1 if its results differ too much."""
    require_writable(settings.file)
    checkpoint = load_checkpoint(settings.checkpoint_path)
    if line := best_and_final_line(settings.checkpoint_path):
        say(line)
    model = build_model(checkpoint, settings.checkpoint_path, averaged=True).eval()
    if settings.format == SAFETENSORS:
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        export_safetensors(checkpoint, settings.file)
        return 0
    require_packages(settings)
    verification = settings.verification
    dataset = None if verification.no_verify else load_exports_set(settings, checkpoint, verification.set_name)
    calibration_set = None
    if settings.quantisation.int8:
        assert dataset
        require_ap(settings, dataset)
        calibration_set = load_exports_set(settings, checkpoint, settings.quantisation.calibration_set)
    started = time.monotonic()
    content = onnx_bytes(model, checkpoint, settings.detection)
    say(f"Exported {settings.checkpoint_path} in {time.monotonic() - started:.0f} s")
    detector = ExportedDetector(settings, checkpoint, model)
    if dataset and calibration_set:
        quantised = quantised_within_limit(detector, content, dataset, calibration_set)
        if quantised is None:
            return 1
        content = quantised
    elif dataset and (faults := verified(detector, content, dataset)):
        say(f"Not written: {'; '.join(faults)}")
        return 1
    with file_error_explained(settings.file, "can't be written", "Make room, or choose another --output_path."):
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        num_bytes = write(detector.file_of(content), settings.file)
    files = (
        f"{settings.file} and {settings.file.with_suffix(WEIGHTS)}" if settings.format == OPENVINO else settings.file
    )
    say(
        f"Written: {files}, {num_bytes / 1e6:.1f} MB. Its inputs are images (uint8, batch x 3 x height x "
        "width, sides multiples of 32) and sizes (int64, height and width without padding); docs/export.md has more"
    )
    return 0


def export_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    save_as_safetensors(checkpoint, path)
    written, weights = load_checkpoint(path), checkpoint.ema or checkpoint.model
    assert written._replace(model={}) == checkpoint._replace(model={}, ema=None), "it must rebuild the same network"
    assert all(torch.equal(written.model[name], weight) for name, weight in weights.items())
    say(f"Written: {path} and {path.with_suffix('.json')}, {len(weights)} tensors, read again and equal")


def require_packages(settings: ExportSettings) -> None:
    """Raises UserError if a package that the export needs is missing."""
    needed = ["onnx", "onnxscript"]
    if settings.format == ONNX or settings.quantisation.int8:
        needed.append("onnxruntime")
    if settings.format == OPENVINO:
        needed.append("openvino")
    for name in needed:
        if not is_installed(name):
            raise UserError(
                f"--format {settings.format} needs {name}. Install what it needs with: pip install {' '.join(needed)}"
            )


def is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # half-imported modules have no spec
        return False


def load_exports_set(settings: ExportSettings, checkpoint: Checkpoint, set_name: str) -> CocoDataset:
    """Loads a set of images for verification or calibration.

    Raises UserError if the set or a COCO backend is missing, or if the set's classes aren't the checkpoint's.
    """
    try:
        annotations, dataset = load_set(
            settings.verification.coco_path,
            set_name,
            min_side=checkpoint.min_side,
            max_side=checkpoint.max_side,
            max_pixels=settings.verification.max_pixels,
            exif=checkpoint.exif,
            white_level=checkpoint.white_level,
        )
        if has_objects(annotations):
            require_backend(next(iter(installed_backends()), "auto"))
    except UserError as fault:
        if settings.quantisation.int8:
            raise
        raise UserError(f"{fault} The file is verified on these images; --no_verify skips that.") from None
    require_same_classes(annotations, checkpoint.class_names, checkpoint.category_ids, settings.checkpoint_path)
    return dataset


def require_ap(settings: ExportSettings, dataset: CocoDataset) -> None:
    """Raises UserError if the set has no objects, because the loss of AP due to INT8 then can't be measured."""
    if not has_objects(dataset.annotations):
        raise UserError(
            f"{dataset.annotations.path}: has no objects, and --int8 measures the AP that the file loses. Choose "
            "another --set_name."
        )


class ExportedDetector(NamedTuple):
    """A checkpoint's detector, and the settings with which it is exported."""

    settings: ExportSettings
    checkpoint: Checkpoint
    model: RetinaNet

    def file_of(self, content: bytes) -> Any:
        """Converts an ONNX file, given as bytes, to what is written: the same bytes, or an openvino.Model."""
        if self.settings.format == OPENVINO:
            return openvino_model(content, metadata_of(self.checkpoint, self.settings.detection))
        return content

    def runner_of(self, content: bytes) -> Runner:
        """Returns a runner for the file that `file_of` makes from `content`."""
        file = self.file_of(content)
        return openvino_runner(file, "cpu") if self.settings.format == OPENVINO else onnx_runner(file, "cpu")

    def look(self) -> Look:
        """Returns a Look that runs the checkpoint's own network, not the exported file."""
        network = fastest_form(self.model, CPU, torch.float32, self.settings.detection.threshold)
        return look_with(network, self.settings.detection.num_candidates, device=CPU, precision=torch.float32)

    def analysed(self, look: Look, dataset: CocoDataset) -> Analysis:
        """Analyses what `look` detects in the set, as test.py does: with tiles if the run was trained on tiles."""
        loading, views = LoaderSettings(self.checkpoint.batch_size), Views(tiles=self.checkpoint.tiles)
        detections = detect_with(look, dataset, loading, device=CPU, detection=self.settings.detection, views=views)
        return analyse(dataset.annotations, detections)


def verified(detector: ExportedDetector, content: bytes, dataset: CocoDataset) -> list[str]:
    """Logs how the file's detections differ from the checkpoint's; returns the differences that are too large."""
    runner = detector.runner_of(content)

    def theirs(images: Tensor, sizes: Tensor) -> tuple[Candidates, Candidates]:
        outputs = runner.run((*DETECTIONS, *CANDIDATES), images, sizes)
        return Candidates(*outputs[: len(DETECTIONS)]), Candidates(*outputs[len(DETECTIONS) :])

    batch_size = detector.checkpoint.batch_size
    comparison = compare(detector.look(), theirs, dataset, batch_size, detector.settings.detection)
    aps = "" if comparison.aps is None else f"; AP {comparison.aps[0]:.4f} and {comparison.aps[1]:.4f}"
    say(
        f"Verified on {counted(comparison.num_images, 'image')}: "
        f"{counted(comparison.counts[0], 'detection')} of the checkpoint, "
        f"{comparison.counts[1]} of the file; boxes within {comparison.pixels:.2g} px, "
        f"scores within {comparison.score:.2g}{aps}"
    )
    return comparison.faults


def quantised_within_limit(
    detector: ExportedDetector, content: bytes, dataset: CocoDataset, calibration_set: CocoDataset
) -> bytes | None:
    """Returns the ONNX file quantised to INT8, with as many layers left in float as the AP limit requires.

    Logs each try, and a table that compares the checkpoint, the float file and the INT8 file. Returns None if the file
    loses too much AP even with half of the layers in float.
    """
    limit = detector.settings.quantisation.max_ap_loss
    drawn = np.random.default_rng(detector.settings.quantisation.seed).permutation(len(calibration_set))
    rows = drawn[:NUM_CALIBRATION].tolist()
    started = time.monotonic()
    quantiser = Quantiser(content, (feed_of(batch) for batch in batches_of(calibration_set, rows)))
    say(
        f"Calibrated on {counted(len(rows), 'image')} from {detector.settings.quantisation.calibration_set} in "
        f"{time.monotonic() - started:.0f} s"
    )
    float_runner = detector.runner_of(content)
    samples = list(batches_of(calibration_set, rows[:NUM_HARM]))
    wanted = [detections_of(float_runner, batch) for batch in samples]

    def harm_of(tried: bytes) -> float:
        runner = detector.runner_of(tried)
        pairs = zip(wanted, samples, strict=True)
        return statistics.fmean(disagreement(ours, detections_of(runner, batch)) for ours, batch in pairs)

    def measure(tried: bytes) -> Analysis:
        return detector.analysed(look_of(detector.runner_of(tried)), dataset)

    of_checkpoint = detector.analysed(detector.look(), dataset)
    for trial in trials(quantiser, measure, harm_of, of_checkpoint, dataset.annotations):
        say(trial_line(trial, len(quantiser.layers)))
        if trial.loss.value <= limit:
            looks = {
                "checkpoint": detector.look(),
                "float32 file": look_of(float_runner),
                "INT8 file": look_of(detector.runner_of(trial.content)),
            }
            analyses = [of_checkpoint, detector.analysed(looks["float32 file"], dataset), trial.analysis]
            sizes = ["", size_text(len(content)), size_text(len(trial.content))]
            say(*form_lines(detector, looks, analyses, sizes, dataset))
            return trial.content
    say(
        f"Not written: with up to half of the layers in float, the file still loses more than {limit:g} AP. Export "
        "without --int8, or raise --max_ap_loss"
    )
    return None


def batches_of(dataset: CocoDataset, rows: Sequence[int]) -> Iterator[Batch]:
    """Yields the images with the indices `rows`, each as a batch. Raises UserError if an image can't be read."""
    for row in rows:
        yield collate([dataset.read(row)])


def feed_of(batch: Batch) -> dict[str, np.ndarray]:
    return {"images": batch.images.contiguous().numpy(), "sizes": batch.sizes.numpy()}


def detections_of(runner: Runner, batch: Batch) -> Detections:
    return Detections(*runner.run(DETECTIONS, batch.images, batch.sizes))


def trial_line(trial: Trial, num_layers: int) -> str:
    listed = "no layer in float"
    if trial.floats:
        more = [f"and {len(trial.floats) - MOST_NAMED} more"] if len(trial.floats) > MOST_NAMED else []
        named = ", ".join([*trial.floats[:MOST_NAMED], *more])
        listed = f"{len(trial.floats)} of {num_layers} in float ({named})"
    return f"INT8, {listed}: AP {trial.analysis.ap.value:.4f}, AP loss {interval_text(trial)}"


def interval_text(trial: Trial) -> str:
    loss = trial.loss
    return f"{loss.value:.4f} ({loss.low:.4f} to {loss.high:.4f}, 95% interval)"


def form_lines(
    detector: ExportedDetector,
    looks: Mapping[str, Look],
    analyses: Sequence[Analysis],
    sizes: Sequence[str],
    dataset: CocoDataset,
) -> list[str]:
    """Returns a table that compares the checkpoint and its files: AP, errors at its threshold, size and speed."""
    threshold = trained_of(detector.checkpoint).threshold
    rows = [["Form", "AP", "AP50", "Missed", "False positives", "Size", "Images/s"]]
    rates = images_per_second(detector, looks, dataset)
    for name, analysis, size, rate in zip(looks, analyses, sizes, rates, strict=True):
        taken = above(analysis.found.scores, threshold)
        counts = count_by_class(taken, analysis.found, analysis.matches, dataset.annotations).total()
        errors = [str(int(number[0])) for number in (counts.misses, counts.false_positives)]
        rows.append([name, f"{analysis.ap.value:.4f}", f"{analysis.ap50.value:.4f}", *errors, size, f"{rate:.3g}"])
    features = ", ".join(cpu_features()) or "none of VNNI, AMX and bf16"
    return [
        f"On {counted(len(dataset), 'image')} from {detector.settings.verification.set_name}, with objects missed and "
        f"false positives at threshold {threshold:.3g}:",
        *aligned(rows),
        f"Images/s are medians of {TIMED_ROUNDS} runs on this machine: {cpu_name()}, "
        f"{counted(torch.get_num_threads(), 'thread')}, "
        f"{features}",
    ]


def images_per_second(detector: ExportedDetector, looks: Mapping[str, Look], dataset: CocoDataset) -> list[float]:
    """Returns the median speed of each Look in images per second, including NMS; they take turns on the same images."""
    batches, num_images = [], 0
    for batch in batches_of_set(dataset, LoaderSettings(detector.checkpoint.batch_size), "Timing"):
        batches.append(batch)
        num_images += len(batch.rows)
        if num_images >= TIMED_IMAGES:
            break

    def seconds(look: Look) -> float:
        started = time.perf_counter()
        for batch in batches:
            suppress(look(batch.images, batch.sizes), batch.sizes, detector.settings.detection)
        return time.perf_counter() - started

    with torch.no_grad():
        taken = [[seconds(look) for look in looks.values()] for _ in range(1 + TIMED_ROUNDS)][1:]  # the first warms up
    return [num_images / statistics.median(of_look) for of_look in zip(*taken, strict=True)]


def write(file: Any, path: Path) -> int:
    """Writes an exported file (bytes or an openvino.Model). Returns its size. Raises OSError if writing fails."""
    if not isinstance(file, bytes):
        return write_openvino(file, path)
    with written_whole(path, "wb") as opened:
        opened.write(file)
    return len(file)
