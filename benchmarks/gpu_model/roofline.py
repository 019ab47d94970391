"""Predicts how long a piece of work takes on a GPU, given its FLOPs and the bytes that it moves.

Besides the work, the inputs are the GPUs' bandwidths and the constants below, none of which this project measured. The
one measured value in the model is the host's time per compiled step, which is in cases.py.
"""

from typing import NamedTuple

# The rate of cuBLAS on an H100 SXM in bfloat16, at the best of many shapes: 792 of the data sheet's 989 TFLOP/s
# (https://github.com/stas00/ml-engineering/tree/master/compute/accelerator, "Maximum Achievable Matmul FLOPS").
MATRIX_RATE = 792e12
# The share of the data sheet's bandwidth that coalesced reads reach on an H100 SXM: 2.8 of 3.35 TB/s
# (https://mikamirai.com/blog/gpu-memory-bandwidth/).
BANDWIDTH_SHARE = 0.84
# Assumed: cuDNN's convolutions reach three quarters of the matrix rate, and the host needs 7 microseconds per launch
# from Python (https://jiahuanglin.xyz/all_lessons/gpu_kernel_serving/18_pytorch_to_kernel.html says 5 to 25).
CONVOLUTION_SHARE = 0.75
LAUNCH_SECONDS = 7e-6


class Gpu(NamedTuple):
    """A GPU as described by its data sheet; all GPUs here multiply matrices at the same rate."""

    name: str
    bandwidth: float  # bytes/s


GPUS = (Gpu("H100", 3.35e12), Gpu("H200", 4.8e12))


class Convolution(NamedTuple):
    """One cuDNN call."""

    flops: float
    bytes: float


class Work(NamedTuple):
    """The work of a training step or a detection pass, on the GPU and on its host."""

    convolutions: list[Convolution]
    other_bytes: float  # read and written by all other kernels
    launches: int  # by the host, one at a time
    replays: int = 0  # of CUDA graphs
    host: float | None = None  # measured seconds of the host; None if only its launches are known

    @property
    def flops(self) -> float:
        return sum(convolution.flops for convolution in self.convolutions)

    @property
    def bytes(self) -> float:
        return self.other_bytes + sum(convolution.bytes for convolution in self.convolutions)

    def gpu_seconds(self, gpu: Gpu) -> float:
        """Returns the time of all kernels.

        A convolution is limited by its FLOPs or its bytes, whichever takes longer, and all other kernels by their
        bytes.
        """
        bandwidth = BANDWIDTH_SHARE * gpu.bandwidth
        rate = CONVOLUTION_SHARE * MATRIX_RATE
        busy = sum(max(call.flops / rate, call.bytes / bandwidth) for call in self.convolutions)
        return busy + self.other_bytes / bandwidth

    def host_seconds(self) -> float:
        return self.launches * LAUNCH_SECONDS if self.host is None else self.host

    def seconds(self, gpu: Gpu) -> float:
        """Returns the longer of the GPU's and the host's times, because both work in parallel."""
        return max(self.gpu_seconds(gpu), self.host_seconds())

    def share_of_matrix_rate(self, gpu: Gpu) -> float:
        return self.flops / self.seconds(gpu) / MATRIX_RATE
