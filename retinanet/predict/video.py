"""Reads and writes videos frame by frame with PyAV, an optional package."""

import os
import secrets
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.predict.outputs import NO_ROOM
from retinanet.runtime.errors import UserError, file_error_explained

MOST_REORDERED = 16  # frames that H.264 may store between a frame and the one shown before it


class VideoFrame(NamedTuple):
    image: Tensor  # uint8 [3, height, width]
    time: int | None  # in units of the stream's time base


class VideoReader:
    """Iterates over the frames of a video. Raises UserError if the video can't be opened or PyAV is missing."""

    def __init__(self, path: Path) -> None:
        self.path, self.av = path, _pyav(path)
        self.faults = (OSError, ValueError, self.av.error.FFmpegError)
        self.fault: str | None = None  # why the frames ended early
        self.is_turned = False  # the last frame was rotated by a quarter turn
        try:
            self.container = self.av.open(os.path.abspath(path))  # FFmpeg would take 12:30.mp4 for an address
            self.stream = self.container.streams.video[0]
        except IndexError:
            raise UserError(f"{path}: can't be read as a video (it has no picture)") from None
        except self.faults as fault:
            raise UserError(f"{path}: can't be read as a video ({fault})") from None
        self.stream.thread_type = "AUTO"

    @property
    def num_frames(self) -> int:
        """Returns the number of frames according to the file, or 0 if the file doesn't state it."""
        return self.stream.frames

    @property
    def rate(self) -> Fraction:
        return self.stream.average_rate or Fraction(25)

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            for frame in self.container.decode(self.stream):
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4  # phones store a rotation, which players apply
                self.is_turned = turns % 2 == 1
                yield VideoFrame(torch.from_numpy(np.rot90(pixels, turns).copy()).permute(2, 0, 1), frame.pts)
        except self.faults as fault:
            self.fault = f"{self.path}: breaks off or is damaged ({fault}); the frames before that are used"

    def close(self) -> None:
        self.container.close()


class VideoWriter:
    """Writes a video frame by frame, with the frame rate and times of the video `like`; closing completes the file."""

    def __init__(self, path: Path, like: VideoReader) -> None:
        self.path, self.av, self.like = path, like.av, like
        # The name is random, because an existing video with the same name would be replaced.
        self.beside = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.unfinished{path.suffix}")
        self.container = self.av.open(os.path.abspath(self.beside), "w")
        self.stream: Any = None
        self.last, self.offset = -1, 0  # the last time written, and what is added to times that started over
        self.first: int | None = None  # the first time of the video that is read

    def add(self, picture: np.ndarray, time: int | None) -> None:
        """Adds the frame `picture`, uint8 [height, width, 3]; all frames must have the same size.

        If the times start over, as in joined recordings, the video continues one frame after the last.
        """
        if self.stream is None:
            self.stream = self._start(*picture.shape[:2])
        frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if time is not None:  # without times, the frame rate is constant
            ticks = max(1, round(1 / (self.like.rate * self.like.stream.time_base)))  # per frame
            self.first = time if self.first is None else self.first
            # AVI has no times: those of H.264's frames are then only out of order, by at most MOST_REORDERED frames.
            back = self.last - (time + self.offset)
            if back > MOST_REORDERED * ticks or (back > ticks and time <= self.first):
                self.offset = self.last + ticks - time
            self.last = max(self.last + 1, time + self.offset)
            frame.pts, frame.time_base = self.last, self.like.stream.time_base
        with file_error_explained(self.path, "can't be written", NO_ROOM):
            self.container.mux(self.stream.encode(frame))

    def _start(self, height: int, width: int) -> Any:
        codec = "libx264" if "libx264" in self.av.codecs_available else "mpeg4"
        stream = self.container.add_stream(codec, rate=self.like.rate)
        stream.height, stream.width = height, width
        # yuv420p stores colour at half the resolution, which requires even sides.
        stream.pix_fmt = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
        stream.codec_context.time_base = self.like.stream.time_base
        if shape := self.like.stream.sample_aspect_ratio:  # DVDs have pixels that aren't square
            stream.codec_context.sample_aspect_ratio = 1 / shape if self.like.is_turned else shape
        return stream

    def close(self, failed: bool = False) -> None:
        """Completes the file, or removes it if `failed` is set or no frame was added."""
        is_complete = False
        try:
            with file_error_explained(self.path, "can't be written", NO_ROOM):
                if self.stream is not None and not failed:
                    self.container.mux(self.stream.encode())
                self.container.close()  # may have to write, too
                is_complete = self.stream is not None and not failed
        finally:
            if is_complete:
                self.beside.replace(self.path)
            else:
                self.beside.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(failed=kind is not None)


def _pyav(path: Path) -> ModuleType:
    try:
        import av
    except ImportError:
        raise UserError(f"{path}: reading a video needs PyAV. Install it with: pip install av") from None
    av.logging.set_level(av.logging.PANIC)  # errors are reported as UserError
    return av
