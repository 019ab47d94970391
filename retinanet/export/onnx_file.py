"""Creates ONNX files, which hold the translated graph and metadata for the programs that read them."""

import json
import logging
import warnings
from typing import Any

import torch

from retinanet.checkpoints.checkpoint import Checkpoint
from retinanet.data.transforms import MULTIPLE
from retinanet.detector.fold import folded_network
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DetectionSettings
from retinanet.export.graph import DetectorGraph, Outputs
from retinanet.predict.networks import trained_of
from retinanet.predict.runners import KEY
from retinanet.runtime.json_files import without_nan

OPSET = 18
MOST_BATCH, MOST_CELLS = 1024, 256  # limits: images in a batch, and multiples of 32 pixels per side


def onnx_bytes(model: RetinaNet, checkpoint: Checkpoint, settings: DetectionSettings) -> bytes:
    """Returns the contents of an ONNX file of the detector."""
    from retinanet.export.onnx_nms import onnx_nms

    # Without batch norms, each convolution has constant weights, as quantisation needs.
    graph = DetectorGraph(folded_network(model, torch.float32), settings).eval()
    size = 192, 320  # at least 2 cells per side on every level: the exporter would make a side of 1 constant
    example = torch.zeros(2, 3, *size, dtype=torch.uint8), torch.tensor([size] * 2)
    batch = torch.export.Dim("batch", min=1, max=MOST_BATCH)
    sides = [MULTIPLE * torch.export.Dim(name, min=2, max=MOST_CELLS) for name in ("height", "width")]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            example,
            input_names=["images", "sizes"],
            output_names=list(Outputs._fields),
            dynamic_shapes=({0: batch, 2: sides[0], 3: sides[1]}, {0: batch}),
            custom_translation_table={torch.ops.retinanet.nms_by_class.default: onnx_nms},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # The exporter records intermediate shapes that are wrong for other image sizes, and onnxruntime would trust them.
    del proto.graph.value_info[:]
    for name, value in metadata_of(checkpoint, settings).items():
        proto.metadata_props.add(key=f"{KEY}.{name}", value=json.dumps(value))
    return proto.SerializeToString()


def metadata_of(checkpoint: Checkpoint, settings: DetectionSettings) -> dict[str, Any]:
    """Returns the metadata of an exported file."""
    return {
        **trained_of(checkpoint)._asdict(),
        "settings": without_nan(checkpoint.settings),
        "least_score": settings.threshold,
        "num_candidates": settings.num_candidates,
        "nms_iou": settings.nms_iou,
        "max_detections": settings.max_detections,
    }
