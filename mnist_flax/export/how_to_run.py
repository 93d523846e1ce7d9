"""The Python that runs an exported file on a picture, without this package. Text out, no files."""

import json
from collections.abc import Sequence

from mnist_flax.export.prepare_file import takes_pictures
from mnist_flax.workdir.environment import environment

_TOLD = {
    "model.stablehlo": (
        "StableHLO, for `pip install jax flatbuffers pillow scipy`, on a CPU, a CUDA GPU or a TPU. "
        "It was written by jax {jax}, and JAX promises that its releases of the next six months "
        "read it."
    ),
    "model.onnx": "ONNX, for `pip install onnxruntime pillow scipy`.",
}
_IMPORTED = {"model.stablehlo": "from jax import export", "model.onnx": "import onnxruntime"}
_OPENED = {
    "model.stablehlo": (
        'with open("model.stablehlo", "rb") as file:',
        "    network = export.deserialize(bytearray(file.read()))",
    ),
    "model.onnx": (
        'network = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])',
    ),
}


def how_to_run(file: str, image_shape: tuple[int, int, int], names: Sequence[str]) -> str:
    """Returns what a card says of running a file, as Markdown. Args: those of example()."""
    code = example(file, image_shape, names)
    return f"{_TOLD[file].format(**environment())}\n\n```python\n{code}```"


def example(
    file: str, image_shape: tuple[int, int, int], names: Sequence[str] = ("probabilities",)
) -> str:
    """Returns the Python that runs an exported file on a picture, without this package.

    It imports prepare.py, which lies beside the file; where no picture file can become the
    network's input, there is none.

    Args:
      file: 'model.stablehlo' or 'model.onnx'.
      image_shape: (H, W, C) that the network takes.
      names: of its outputs.
    """
    if pictures := takes_pictures(image_shape):
        made = 'prepare("picture.png")'
    else:
        made = f"np.zeros({(1, *image_shape)}, np.uint8)  # one image of your own"
    asked = _asked_onnx(names) if file == "model.onnx" else _asked_stablehlo(names)
    lines = [_IMPORTED[file]]
    if file == "model.stablehlo" or not pictures:
        lines.insert(0, "import numpy as np")
    if pictures:
        lines.append("from prepare import prepare")
    lines += ["", *_OPENED[file], f"images = {made}", *asked]
    return "\n".join(lines) + "\n"


def _asked_stablehlo(names: Sequence[str]) -> list[str]:
    if len(names) > 1:
        return [
            "for name, answer in network.call(images).items():",
            "    print(name, np.asarray(answer)[0])",
        ]
    variable, shown = _single(names[0])
    return [f"{variable} = np.asarray(network.call(images))", f"print({shown})"]


def _asked_onnx(names: Sequence[str]) -> list[str]:
    given = json.dumps(list(names))
    if len(names) > 1:
        return [
            f"names = {given}",
            'for name, answer in zip(names, network.run(names, {"images": images})):',
            "    print(name, answer[0])",
        ]
    variable, shown = _single(names[0])
    return [f'({variable},) = network.run({given}, {{"images": images}})', f"print({shown})"]


def _single(name: str) -> tuple[str, str]:
    """Returns what the only output is called in the code, and what is printed of it."""
    if name == "probabilities":
        return name, "probabilities[0].argmax(), probabilities[0].max()"
    return "answer", "answer[0]"
