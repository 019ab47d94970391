import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.detector.boxes import MAX_LOG_GROWTH, clip, decode, encode

sides = st.floats(1, 500, width=32)
corners = st.floats(-200, 1200, width=32)
boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corners, corners, sides, sides)


@given(boxes, boxes)
def test_decode_inverts_encode(box, anchor):
    box, anchor = torch.tensor([box]), torch.tensor([anchor])
    growth = ((box[:, 2:] - box[:, :2]) / (anchor[:, 2:] - anchor[:, :2])).log()
    if growth.max() < MAX_LOG_GROWTH:
        torch.testing.assert_close(decode(encode(box, anchor), anchor), box, rtol=1e-4, atol=0.02)


@pytest.mark.parametrize(
    ("box", "deltas"),
    [
        ((0, 0, 10, 20), (0, 0, 0, 0)),
        ((1, 0, 11, 20), (1, 0, 0, 0)),  # a tenth of the width to the right
        ((0, 4, 10, 24), (0, 2, 0, 0)),
        ((-5, 0, 15, 20), (0, 0, 3.465736, 0)),  # twice as wide: ln 2 / 0.2
    ],
)
def test_encode_by_hand(box, deltas):
    anchor = torch.tensor([[0.0, 0, 10, 20]])
    torch.testing.assert_close(encode(torch.tensor([box]).float(), anchor), torch.tensor([deltas]).float())


def test_decode_does_not_overflow():
    grown = decode(torch.tensor([[0.0, 0, 1e9, 1e9]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(grown, torch.tensor([[-492.0, -492, 508, 508]]))


def test_clip_to_height_and_width_of_each_image():
    both = torch.tensor([[[-5.0, -6, 300, 300]], [[10.0, 20, 30, 40]]])
    clipped = clip(both, torch.tensor([[100, 200], [25, 15]]))
    assert clipped.tolist() == [[[0, 0, 200, 100]], [[10, 20, 15, 25]]]
