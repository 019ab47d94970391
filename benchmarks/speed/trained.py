"""Sets up detection with one checkpoint, run by our network, by exported files and by torchvision's network.

All contestants, except the one that runs the whole `predict` command, get each image at the same size, and use the
same anchors, box encoding, threshold and NMS. They differ in the number of candidates that enter NMS: ours takes the
best 1,000 of an image, torchvision the best 1,000 of each level. If more pass the threshold, a higher --num_candidates
makes the detections equal.
"""

import argparse
import io
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.v2.functional import resize

from benchmarks.speed.contestants import precision_of, torchvision_model
from retinanet.checkpoints.checkpoint import build_model, load_checkpoint
from retinanet.commands.predict import predict
from retinanet.data.batches import Sample
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.detector.anchors import anchors_for
from retinanet.detector.boxes import CENTRE_DEVIATION, SIZE_DEVIATION
from retinanet.detector.detect import suppress
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Detections
from retinanet.detector.windows import can_be_sparse
from retinanet.evaluation.detect_set import fastest_form
from retinanet.evaluation.views import Look, look_with
from retinanet.export.int8 import Quantiser
from retinanet.export.onnx_file import metadata_of, onnx_bytes
from retinanet.export.openvino_file import openvino_model
from retinanet.predict.networks import look_of
from retinanet.predict.runners import onnx_runner, openvino_runner
from retinanet.runtime.device import PRECISIONS, autocast
from retinanet.settings.predict import predict_settings
from retinanet.settings.shared import MAX_PIXELS, MAX_SIDE, MIN_SIDE

Found = list[dict[str, Tensor]]  # boxes, scores and labels of each image, as torchvision gives them
NAMES = (  # ours and torchvision's
    (r"^backbone\.", "backbone.body."),
    (r"^pyramid\.lateral([345])\.", lambda found: f"backbone.fpn.inner_blocks.{int(found[1]) - 3}.0."),
    (r"^pyramid\.output([345])\.", lambda found: f"backbone.fpn.layer_blocks.{int(found[1]) - 3}.0."),
    (r"^pyramid\.output([67])\.", r"backbone.fpn.extra_blocks.p\1."),
    (r"^(\w+_head)\.tower\.(\d)\.", lambda found: f"head.{found[1]}.conv.{int(found[2]) // 2}.0."),
    (r"^classification_head\.output\.", "head.classification_head.cls_logits."),
    (r"^regression_head\.output\.", "head.regression_head.bbox_reg."),
)


def our_detection(args: argparse.Namespace, precision: str | None = None) -> Callable[[], Found]:
    """Returns a function that detects objects with a checkpoint as predict does. `precision` overrides --precision."""
    dtype = PRECISIONS[precision] if precision else precision_of(args)
    model, batches = _trained(args), _batches(args)
    with torch.no_grad():
        network = fastest_form(model, args.device, dtype, DEFAULT_DETECTION.threshold)
    look = look_with(network, args.num_candidates, device=args.device, precision=dtype)
    return _detection(look, batches, args)


def torchvision_detection(args: argparse.Namespace) -> Callable[[], Found]:
    model, batches = torchvision_twin(_trained(args)).to(args.device).eval(), _batches(args)
    model.topk_candidates = args.num_candidates

    @torch.no_grad()
    def detection() -> Found:
        with autocast(args.device, precision_of(args)):
            return [of_image for images in batches for of_image in model(list(images.float() / 255))]

    return detection


def exported_detection(
    args: argparse.Namespace, form: str, precision: str = "float32", int8: bool = False
) -> Callable[[], Found]:
    """Returns a function that detects objects as predict does, by running an exported file with its library."""
    content = _int8_file(args) if int8 else _onnx_file(args)
    if form == "onnx":
        runner = onnx_runner(content, args.device.type)
    else:
        checkpoint = load_checkpoint(args.checkpoint_path)
        model = openvino_model(content, metadata_of(checkpoint, _settings(args)))
        runner = openvino_runner(model, "cpu", PRECISIONS[precision])
    batches = [images.cpu() for images in _batches(args)]
    return _detection(look_of(runner), batches, args)


def predict_command(args: argparse.Namespace) -> Callable[[], None]:
    """Returns a function that runs `predict` on image files: it opens the checkpoint and writes pictures with boxes.

    The images are resized as in training, whatever --height and --width are.
    """
    dataset = _set(args)
    words = [*(str(dataset.path(index)) for index in range(_num_images(dataset, args))), "--device", args.device.type]
    words += ["--checkpoint_path", str(args.checkpoint_path), "--precision", args.precision]

    def detection() -> None:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            predict(predict_settings([*words, "--output_path", str(Path(folder) / "predictions")]))

    return detection


def _detection(look: Look, batches: list[Tensor], args: argparse.Namespace) -> Callable[[], Found]:
    sizes = _sizes(args)

    @torch.no_grad()
    def detection() -> Found:
        return [of_image for images in batches for of_image in _separate(suppress(look(images, sizes), sizes))]

    return detection


def _settings(args: argparse.Namespace) -> DetectionSettings:
    return replace(DEFAULT_DETECTION, num_candidates=args.num_candidates)


def _onnx_file(args: argparse.Namespace) -> bytes:
    return onnx_bytes(_trained(args).cpu(), load_checkpoint(args.checkpoint_path), _settings(args))


def _int8_file(args: argparse.Namespace) -> bytes:
    """Returns an ONNX file for measuring only speed: all layers are quantised, and calibrated on the first images."""
    feeds = ({"images": images.numpy(), "sizes": _sizes(args).numpy()} for images in _batches(args))
    return Quantiser(_onnx_file(args), feeds).without([])


def torchvision_twin(ours: RetinaNet) -> TorchvisionRetinaNet:
    """Returns torchvision's RetinaNet with the weights, anchors and box encoding of `ours`."""
    channels, width = ours.pyramid.output7.out_channels, ours.pyramid.output6.in_channels
    num_classes = ours.classification_head.num_outputs
    twin = torchvision_model(ours.backbone.depth, num_classes, channels)
    twin.backbone.fpn.extra_blocks = LastLevelP6P7(width, channels)  # P6 from C5, like ours
    twin.anchor_generator = _Anchors(ours)
    twin.box_coder = BoxCoder((1 / CENTRE_DEVIATION,) * 2 + (1 / SIZE_DEVIATION,) * 2)
    twin.detections_per_img = DEFAULT_DETECTION.max_detections  # torchvision's default is 300
    weights = {}
    for name, weight in ours.state_dict().items():
        for pattern, theirs in NAMES:
            name = re.sub(pattern, theirs, name)
        if not name.endswith("num_batches_tracked"):
            weights[name] = weight
    twin.load_state_dict(weights)
    return twin


def agreement(ours: Found, theirs: Found) -> str:
    """Describes how the two contestants' detections differ, for the line under a table."""
    counts = [sum(len(of_image["scores"]) for of_image in found) for found in (ours, theirs)]
    alike = [(a, b) for a, b in zip(ours, theirs, strict=True) if len(a["scores"]) == len(b["scores"])]
    worst = {
        name: max((float((a[name] - b[name]).abs().max()) for a, b in alike if len(a[name])), default=0.0)
        for name in ("boxes", "scores", "labels")
    }
    return (
        f"Detections: {counts[0]} and {counts[1]}, as many of each in {len(alike)} of {len(ours)} images; there the "
        f"boxes differ by at most {worst['boxes']:.1e} px, the scores by {worst['scores']:.1e}, the labels by "
        f"{worst['labels']:.0f}."
    )


class _Anchors(nn.Module):
    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.shapes = model.architecture.anchors

    def forward(self, images: object, levels: list[Tensor]) -> list[Tensor]:
        height, width = images.tensors.shape[2:]  # type: ignore[attr-defined]
        return [anchors_for(height, width, levels[0].device, self.shapes)] * len(levels[0])


def _trained(args: argparse.Namespace) -> RetinaNet:
    return (
        build_model(load_checkpoint(args.checkpoint_path), args.checkpoint_path, averaged=True).to(args.device).eval()
    )


def has_twin(args: argparse.Namespace) -> bool:
    """Returns True if torchvision's network can hold the weights; it has no group norm, level code or IoU branch."""
    model = _trained(args)
    return can_be_sparse(model) and not model.architecture.iou_branch


def _sizes(args: argparse.Namespace) -> Tensor:
    return torch.tensor([[args.height, args.width]] * args.batch_size, device=args.device)


def _set(args: argparse.Namespace) -> CocoDataset:
    return load_set(args.coco_path, "val", min_side=MIN_SIDE, max_side=MAX_SIDE, max_pixels=MAX_PIXELS)[1]


def _num_images(dataset: CocoDataset, args: argparse.Namespace) -> int:
    return min(args.num_images, len(dataset)) // args.batch_size * args.batch_size


def _batches(args: argparse.Namespace) -> list[Tensor]:
    """Returns the first images of the set, in batches of uint8 [batch, 3, height, width]."""
    dataset = _set(args)
    images = []
    for index in range(_num_images(dataset, args)):
        sample = dataset[index]
        assert isinstance(sample, Sample), sample
        images.append(resize(sample.image, [args.height, args.width]))
    return list(torch.stack(images).to(args.device).split(args.batch_size))


def _separate(detections: Detections) -> Found:
    found = []
    for boxes, scores, labels in zip(*detections, strict=True):
        real = labels >= 0
        found.append({"boxes": boxes[real], "scores": scores[real], "labels": labels[real]})
    return found
