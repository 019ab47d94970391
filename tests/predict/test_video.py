import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.videos import av, facts, write_video

from retinanet.predict.video import VideoReader, VideoWriter
from retinanet.runtime.errors import UserError


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(10)])
def test_frames_size_rate_and_times_stay(tmp_path, rate):
    source, copy = write_video(tmp_path / "in.mp4", 40, rate=rate), tmp_path / "out.mp4"
    reader = VideoReader(source)

    with VideoWriter(copy, reader) as writer:
        for frame in reader:
            writer.add(frame.image.permute(1, 2, 0).numpy(), frame.time)

    wanted, got = facts(source), facts(copy)
    assert got[:4] == wanted[:4]
    assert got[4] == pytest.approx(wanted[4], abs=1e-3)
    first, *_, last = (frame.image.float().mean() for frame in VideoReader(copy))
    assert first < 10
    assert last > 240


def test_odd_sides(tmp_path):
    reader = VideoReader(write_video(tmp_path / "in.mp4", 3))

    with VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            writer.add(frame.image.permute(1, 2, 0).numpy()[:45, :63], frame.time)

    assert facts(tmp_path / "out.mp4")[:3] == (3, 45, 63)


def test_nothing_is_left_of_a_video_that_failed(tmp_path):
    reader = VideoReader(write_video(tmp_path / "in.mp4", 3))

    writer = VideoWriter(tmp_path / "out.mp4", reader)
    for frame in reader:
        writer.add(frame.image.permute(1, 2, 0).numpy(), frame.time)
    writer.__exit__(KeyError, KeyError(), None)

    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_damaged_video(tmp_path):
    path = write_video(tmp_path / "in.mp4", 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(UserError, match=r"in.mp4: can't be read as a video"):
        VideoReader(path)


def test_a_sound_without_a_picture(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    with pytest.raises(UserError, match=r"sound.mp4: can't be read as a video \(it has no picture\)"):
        VideoReader(path)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(UserError, match=r"a.mp4: reading a video needs PyAV. Install it with: pip install av"):
        VideoReader(tmp_path / "a.mp4")


def test_a_video_whose_time_starts_again_goes_on(tmp_path):
    """Two recordings, joined without new times."""
    source, copy = write_video(tmp_path / "in.mp4", 10), tmp_path / "out.mp4"
    reader = VideoReader(source)
    frames = list(reader)

    with VideoWriter(copy, reader) as writer:
        for frame in [*frames, *frames]:
            writer.add(frame.image.permute(1, 2, 0).numpy(), frame.time)

    count, *_, times = facts(copy)
    assert count == 20
    assert times == pytest.approx([number / 25 for number in range(20)], abs=1e-3)


def copied(source, copy):
    reader = VideoReader(source)
    with VideoWriter(copy, reader) as writer:
        for frame in reader:
            writer.add(frame.image.permute(1, 2, 0).numpy(), frame.time)
    return facts(copy)


def test_times_out_of_order_are_no_new_start(tmp_path):
    """AVI has no times, so those of H.264's frames are in the order in which they are stored."""
    source = tmp_path / "in.avi"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(30):
            pixels = np.full((48, 64, 3), 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    times = [frame.time for frame in VideoReader(source)]
    assert times != sorted(times)

    count, *_, times = copied(source, tmp_path / "out.mp4")
    assert count == 30
    assert times[-1] - times[0] == pytest.approx(29 / 25, abs=6 / 25)


def test_the_shape_of_pixels_stays(tmp_path):
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())

    copied(source, tmp_path / "out.mp4")
    assert VideoReader(tmp_path / "out.mp4").stream.sample_aspect_ratio == Fraction(4, 3)


def test_a_name_that_looks_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "12:30:05.mp4", 3)
    reader = VideoReader(Path("12:30:05.mp4"))
    with VideoWriter(Path("13:00:00.mp4"), reader) as writer:
        for frame in reader:
            writer.add(frame.image.permute(1, 2, 0).numpy(), frame.time)
    assert facts(tmp_path / "13:00:00.mp4")[0] == 3


def test_a_codec_that_is_not_known(tmp_path):
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    source.write_bytes(source.read_bytes().replace(b"avc1", b"zzzz"))
    fault = ""
    try:
        reader = VideoReader(source)
        assert list(reader) == []
        fault = reader.fault
    except UserError as error:
        fault = str(error)
    assert fault.startswith(f"{source}: ")


def test_an_unfinished_video_takes_no_other_videos_name(tmp_path):
    reader = VideoReader(write_video(tmp_path / "in.mp4", 3))
    other = tmp_path / "out.unfinished.mp4"
    other.write_bytes(b"another video")

    with VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            writer.add(frame.image.permute(1, 2, 0).numpy(), frame.time)

    assert other.read_bytes() == b"another video"
    assert facts(tmp_path / "out.mp4")[0] == 3
