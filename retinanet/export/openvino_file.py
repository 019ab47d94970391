"""Creates OpenVINO files: an ONNX file's graph and metadata in OpenVINO's own format."""

import errno
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retinanet.predict.runners import KEY, openvino_library
from retinanet.runtime.files import written_whole

WEIGHTS = ".bin"  # the suffix of the second file, which holds the weights


def openvino_model(content: bytes, facts: dict[str, Any]) -> Any:
    """Returns an openvino.Model with the metadata `facts` and the graph of an ONNX file, given as bytes.

    Raises UserError if OpenVINO is missing.
    """
    model = openvino_library().Core().read_model(content)
    for name, value in facts.items():
        model.set_rt_info(json.dumps(value), [KEY, name])
    return model


def write_openvino(model: Any, path: Path) -> int:
    """Writes the model to `path` (.xml) and its weights next to it (.bin), each atomically.

    Returns the total size of the two files in bytes. Raises OSError if writing fails.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        try:
            openvino_library().save_model(model, Path(folder) / path.name, compress_to_fp16=False)
        except RuntimeError as error:  # OpenVINO doesn't say why
            raise OSError(errno.EIO, "OpenVINO can't write the file. Is the disk full?") from error
        contents = {
            suffix: (Path(folder) / path.name).with_suffix(suffix).read_bytes() for suffix in (WEIGHTS, path.suffix)
        }
    for suffix, content in contents.items():
        with written_whole(path.with_suffix(suffix), "wb") as file:
            file.write(content)
    return sum(map(len, contents.values()))
