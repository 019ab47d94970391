"""Expresses per-class NMS in ONNX operators, which the exporter inserts into the graph."""

from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op


def onnx_nms(boxes: FLOAT, class_scores: FLOAT, nms_iou: float, threshold: float) -> FLOAT:
    """Returns the same mask as graph.nms_by_class."""
    most: INT64 = op.Gather(op.Shape(boxes), op.Constant(value_ints=[1]))  # N: no limit per class
    # The rows are (image, class, box). ONNX expects (y, x) pairs, but swapping the axes doesn't change the IoU.
    chosen = op.NonMaxSuppression(
        boxes, class_scores, most, op.Constant(value_floats=[nms_iou]), op.Constant(value_floats=[threshold])
    )
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    shape = op.Slice(op.Shape(boxes), op.Constant(value_ints=[0]), op.Constant(value_ints=[2]))  # B, N
    nothing = op.Expand(op.Constant(value_float=0.0), shape)
    count = op.Slice(op.Shape(places), op.Constant(value_ints=[0]), op.Constant(value_ints=[1]))
    return op.ScatterND(nothing, places, op.Expand(op.Constant(value_float=1.0), count))
