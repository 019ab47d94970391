"""A network that runs with folded batch norms and weights in its format, made for all layers at once."""

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor, nn

from retinanet.detector.anchors import STRIDES
from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Predictions
from retinanet.fast import epilogues
from retinanet.fast.epilogues import Given, GivenConvolution
from retinanet.fast.folded_layers import Cast, NormedLayers, with_norms

# Each part's gradients are complete at its own moment, so that ranks can send the last layers' while the first are
# computed. The first three stages are too small to send alone.
PARTS = (("conv1", "bn1", "layer1", "layer2"), ("layer3",), ("layer4",))


class FoldedNetwork:
    """Predictions of `model` with the weights that it has at a call, and gradients for them.

    Equal to within rounding: mean / deviation is rounded as one number. For networks with `fixed_statistics`. `dtype`
    is the format of convolutions; autocast still has to bring the images into it.
    """

    def __init__(self, model: RetinaNet, dtype: torch.dtype) -> None:
        assert fixed_statistics(model)
        self.dtype = dtype
        self.parts = [part for names in PARTS for part in _parts(model, names)]
        normed = {convolution for part in self.parts for convolution, _ in part.pairs}
        plain = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
        self.pyramid = [layer for name, layer in plain if layer not in normed and name.startswith("pyramid")]
        self.heads = [layer for name, layer in plain if layer not in normed and not name.startswith("pyramid")]
        self.given = {layer: GivenConvolution(layer) for _, layer in plain}
        self.network = epilogues.rebuilt(model, self.given.__getitem__)
        if epilogues.are_on():
            epilogues.use_epilogues(self.network)

    def __call__(self, images: Tensor) -> Predictions:
        """As RetinaNet's."""
        for layer, given in self.weights():
            self.given[layer].weights = iter(given)
        return self.network(images)

    def weights(self) -> Iterator[tuple[nn.Conv2d, list[Given]]]:
        """Each convolution with its weight and bias, as often as it is used."""
        for part in self.parts:
            folded = part.folded(self.dtype)
            for (layer, _), given in zip(part.pairs, folded, strict=True):
                yield layer, [given]
        for layers, num_uses in ((self.pyramid, 1), (self.heads, len(STRIDES))):
            yield from _cast(layers, num_uses, self.dtype)


def fixed_statistics(model: RetinaNet) -> bool:
    """Whether no batch norm of `model` measures its statistics, in the mode that it is in."""
    return not any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in model.modules())


@torch.no_grad()
def folded_once(model: RetinaNet, dtype: torch.dtype) -> RetinaNet:
    """`model` for detection, its convolutions with the weights that it has now."""
    folded = FoldedNetwork(model, dtype)
    for layer, given in folded.weights():
        folded.given[layer].weights = repeat(given[0])
    return folded.network.eval()


def _parts(model: RetinaNet, names: tuple[str, ...]) -> Iterator[NormedLayers]:
    """The convolutions of the backbone's modules `names` with their norms: those that learn, and those that don't."""
    found: dict[bool, list[tuple[nn.Conv2d, nn.BatchNorm2d]]] = {}
    for name, convolution, norm in with_norms(model):
        if name.partition(".")[0] in names:
            found.setdefault(convolution.weight.requires_grad, []).append((convolution, norm))
    yield from map(NormedLayers, found.values())


def _cast(layers: list[nn.Conv2d], num_uses: int, dtype: torch.dtype) -> Iterator[tuple[nn.Conv2d, list[Given]]]:
    parameters = [value for layer in layers for value in (layer.weight, layer.bias) if value is not None]
    copies = iter(Cast.apply(dtype, num_uses, *parameters))
    for layer in layers:
        weights = [next(copies) for _ in range(num_uses)]
        biases = [None if layer.bias is None else next(copies) for _ in range(num_uses)]
        yield layer, list(zip(weights, biases, strict=True))
