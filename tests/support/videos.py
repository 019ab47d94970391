"""Writes and reads small videos."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")


def write_video(path: Path, num_frames: int, size: tuple[int, int] = (48, 64), rate: Fraction = Fraction(25)) -> Path:
    """Writes a video whose frames get brighter; returns `path`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((*size, 3), 255 * number // num_frames, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def facts(path: Path) -> tuple:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
        return len(times), stream.height, stream.width, stream.average_rate, times
