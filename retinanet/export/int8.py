"""Quantises ONNX files to INT8 with onnxruntime.

Weights are quantised to 8 bits with a scale per channel, and activations to 8 bits with the ranges that calibration
found. Box decoding and NMS stay in float32, and so do the outputs of the heads.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]  # the inputs of the file for a batch
QUANTISED = ("Add", "Conv", "MaxPool", "Resize")  # operators
ACTIVATION = "Relu"  # isn't quantised itself; the tensors before and after it count as one


class Quantiser:
    """Quantises an ONNX file, given as bytes, using the ranges of its activations on `feeds`.

    `layers` maps the name of each convolution to the names of its nodes in the graph (one per use) and of the addition,
    pooling and resizing nodes that share a tensor with these.
    """

    def __init__(self, content: bytes, feeds: Iterable[Feed]) -> None:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, create_calibrator

        self._content = content
        self.layers = layers_of(onnx.load_from_string(content).graph)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "float.onnx"
            file.write_bytes(content)
            augmented = str(Path(folder) / "augmented.onnx")
            # The mean over the images of each image's range, since the extremes of one image would widen all steps.
            how = {"moving_average": True}
            calibrator = create_calibrator(
                file, list(QUANTISED), augmented, CalibrationMethod.MinMax, extra_options=how
            )
            calibrator.collect_data(_reader(iter(feeds)))
            self._ranges = calibrator.compute_data()

    def without(self, layers: Collection[str]) -> bytes:
        """Returns the file with all layers quantised, except for `layers` and nodes that share a tensor with them."""
        kept = {node for layer in layers for node in self.layers[layer]}
        return self._quantised({node for nodes in self.layers.values() for node in nodes} - kept)

    def with_only(self, layer: str) -> bytes:
        """Returns the file in which only `layer` and the nodes that share a tensor with it are quantised."""
        return self._quantised(self.layers[layer])

    def _quantised(self, nodes: Collection[str]) -> bytes:
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

        with TemporaryDirectory() as folder:
            file = Path(folder) / "float.onnx"
            file.write_bytes(self._content)
            with warnings.catch_warnings():
                # About tensors that are 0 in all images, and about -inf in tensors that aren't quantised.
                warnings.simplefilter("ignore")
                quantizer = QDQQuantizer(
                    load_model_with_shape_infer(file),
                    per_channel=True,
                    reduce_range=False,
                    weight_qType=QuantType.QInt8,
                    activation_qType=QuantType.QUInt8,
                    tensors_range=self._ranges,
                    nodes_to_quantize=sorted(nodes),
                    nodes_to_exclude=[],
                    op_types_to_quantize=list(QUANTISED),
                    extra_options={"OpTypesToExcludeOutputQuantization": list(QUANTISED)},
                )
                quantizer.quantize_model()
        del quantizer.model.model.graph.value_info[:]  # intermediate shapes, as in onnx_bytes
        return quantizer.model.model.SerializeToString()


def layers_of(graph: Any) -> dict[str, set[str]]:
    """Returns the layers of an onnx.GraphProto, in the form of Quantiser.layers."""
    convolutions: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            convolutions.setdefault(node.input[1].removeprefix("model.").removesuffix(".weight"), []).append(node)
    before_activation = {node.output[0]: node.input[0] for node in graph.node if node.op_type == ACTIVATION}
    neighbours: dict[str, set[str]] = {}  # the names of the other nodes at each tensor, on either side of activations
    for node in graph.node:
        if node.op_type in QUANTISED and node.op_type != "Conv":
            for tensor in (*node.input, *node.output):
                neighbours.setdefault(before_activation.get(tensor, tensor), set()).add(node.name)
    layers = {}
    for layer, nodes in convolutions.items():
        tensors = [tensor for node in nodes for tensor in (node.input[0], node.output[0])]
        shared = [neighbours.get(before_activation.get(tensor, tensor), set()) for tensor in tensors]
        layers[layer] = {node.name for node in nodes}.union(*shared)
    return layers


def _reader(feeds: Iterator[Feed]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def get_next(self) -> Feed | None:
            return next(feeds, None)

    return Reader()
