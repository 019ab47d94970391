import pytest
import torch
from support.built import small_losses, small_network

from retinanet.detector.anchors import AnchorShapes, anchors_for
from retinanet.detector.loss import detection_loss
from retinanet.detector.settings import MATCHERS, LossSettings
from retinanet.detector.structures import CROWD, Targets
from retinanet.training.compilation import Compiled

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")


def batch_of(num_images, height=64, width=96, most=2):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, height, width), dtype=torch.uint8, generator=draw)
    boxes = torch.tensor([8.0, 8, 40, 40]) + 5 * torch.arange(num_images * most).view(num_images, most, 1)
    return images, Targets(boxes, torch.zeros(num_images, most, dtype=torch.int64))


@pytest.fixture
def model():
    return small_network(random_outputs=True).train()


@pytest.mark.parametrize("matcher", MATCHERS)
def test_the_anchors_are_the_models(matcher):
    shapes = AnchorShapes(3, (0.4, 1.0), (1.0,))
    model = small_network(anchors=shapes, random_outputs=True)
    images, targets = batch_of(2)
    settings = LossSettings(matcher=matcher)
    anchors = anchors_for(64, 96, CPU, shapes)
    wanted = detection_loss(model(images), anchors, targets, settings, size=(64, 96))
    assert wanted.regression > 0
    torch.testing.assert_close(small_losses(model, loss_settings=settings)(images, targets), wanted)


def gradient_of(model, losses):
    model.zero_grad()
    sum(losses).backward()
    return [value.grad.clone() for value in model.parameters()]


def test_compiled_is_the_same_for_every_shape_and_number_of_objects(model):
    shapes = []

    def backend(graph, inputs):
        shapes.append(next(tuple(value.shape) for value in inputs if value.dtype == torch.uint8))
        return graph.forward

    torch._dynamo.reset()
    eager = small_losses(model)
    compiled = small_losses(model, compiled=Compiled(2, backend=backend))
    for num_images, height, width, most in ((2, 64, 96, 1), (2, 64, 96, 3), (2, 96, 64, 2), (1, 64, 96, 2)):
        case = batch_of(num_images, height, width, most)
        wanted, got = eager(*case), compiled(*case)
        torch.testing.assert_close(got, wanted)
        for one, other in zip(gradient_of(model, got), gradient_of(model, eager(*case)), strict=True):
            # Sums in another order: a small entry may differ by what is rounding for the largest.
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1, float(other.abs().max())))
    assert shapes == [(2, 3, 64, 96), (2, 3, 96, 64)]  # one each; the batch that is not full is left alone


def test_other_losses_are_the_same_compiled(model):
    settings = LossSettings(matcher="atss", box_loss="giou", ignore_crowds=True)
    torch._dynamo.reset()
    eager = small_losses(model, loss_settings=settings)
    compiled = small_losses(model, loss_settings=settings, compiled=Compiled(2, backend="eager"))
    for most in (1, 3):
        images, targets = batch_of(2, most=most)
        targets.labels[1, 0] = CROWD
        wanted, got = eager(images, targets), compiled(images, targets)
        torch.testing.assert_close(got, wanted)
        for one, other in zip(gradient_of(model, got), gradient_of(model, eager(images, targets)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1, float(other.abs().max())))


def test_bfloat16_is_near_float32(model):
    case = batch_of(2)
    exact = small_losses(model)(*case)
    rough = small_losses(model, precision=torch.bfloat16)(*case)
    assert rough.classification.dtype == rough.regression.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)
    assert rough.classification != exact.classification


@pytest.mark.parametrize(("level_code", "head_norm"), [(False, "group"), (True, "none"), (True, "group")])
def test_heads_that_need_whole_levels_get_them(level_code, head_norm):
    model = small_network(level_code=level_code, channels=32, head_norm=head_norm, random_outputs=True).train()
    for buffer in (value for name, value in model.named_buffers() if name.startswith("level_")):
        buffer += 0.1 * torch.randn_like(buffer)
    images, targets = batch_of(2)
    found = small_losses(model)(images, targets)
    wanted = detection_loss(model(images), anchors_for(64, 96, CPU), targets)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(gradient_of(model, found), gradient_of(model, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
