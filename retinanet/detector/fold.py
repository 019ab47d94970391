"""Folds each batch norm into the convolution before it, for detection."""

from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from retinanet.detector.model import RetinaNet


@torch.no_grad()
def folded_network(model: RetinaNet, precision: torch.dtype) -> RetinaNet:
    """Returns a copy of `model` for detection, without batch norms and with convolution weights in `precision`.

    Each call of `model` itself folds the norms and casts all weights anew; the copy saves this work.
    """
    network = deepcopy(model).eval()
    # The backbone, like torchvision's ResNet, registers each norm right after its convolution.
    for (name, convolution), (name_of_norm, norm) in pairwise(list(network.backbone.named_modules())):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            network.backbone.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
            network.backbone.set_submodule(name_of_norm, nn.Identity())
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(precision)
    return network
