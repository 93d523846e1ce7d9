"""The Python that runs an exported file on a picture, without this package. Text out, no files."""

import json
from collections.abc import Sequence

from mnist_flax.export.network import Network
from mnist_flax.export.prepare_file import takes_pictures
from mnist_flax.workdir.environment import environment

_TOLD = {
    "stablehlo": (
        "StableHLO, for `pip install jax flatbuffers pillow scipy`, on a CPU, a CUDA GPU or a TPU. "
        "It was written by jax {jax}, and JAX promises that its releases of the next six months "
        "read it."
    ),
    "onnx": "ONNX, for `pip install onnxruntime pillow scipy`.",
}
_IMPORTED = {"stablehlo": "from jax import export", "onnx": "import onnxruntime"}
_OPENED = {
    "stablehlo": (
        'with open("{file}", "rb") as file:',
        "    network = export.deserialize(bytearray(file.read()))",
    ),
    "onnx": (
        'network = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
    ),
}


def how_to_run(file: str, image_shape: tuple[int, int, int], network: Network) -> str:
    """Returns what a card says of running a file, as Markdown.

    Args:
      file: of that network, as export_network names it.
      image_shape: (H, W, C) of the run's images.
      network: what it computes.
    """
    if network.given == "latents":
        code = draws(file, network.inputs.shape[1])
    else:
        code = example(file, image_shape, network.names)
    told = _TOLD[_form(file)].format(**environment())
    return f"{told}\n\n```python\n{code}```"


def draws(file: str, latent_size: int) -> str:
    """Returns the Python that has an exported sampler draw, without this package.

    Args:
      file: 'sampler.stablehlo' or 'sampler.onnx'.
      latent_size: of what it draws from.
    """
    form = _form(file)
    noise = f"np.random.default_rng(0).standard_normal((1, {latent_size}), np.float32)"
    asked = (
        '(pictures,) = network.run(["pictures"], {"latents": latents})'
        if form == "onnx"
        else "pictures = np.asarray(network.call(latents))"
    )
    picture = "Image.fromarray(np.rint(255 * pictures[0].squeeze()).astype(np.uint8))"
    lines = ["import numpy as np", _IMPORTED[form], "from PIL import Image", ""]
    lines += [*_opened(file), f"latents = {noise}", asked, f'{picture}.save("drawn.png")']
    return "\n".join(lines) + "\n"


def _form(file: str) -> str:
    return file.partition(".")[2]


def _opened(file: str) -> list[str]:
    return [line.replace("{file}", file) for line in _OPENED[_form(file)]]


def example(
    file: str, image_shape: tuple[int, int, int], names: Sequence[str] = ("probabilities",)
) -> str:
    """Returns the Python that runs an exported file on a picture, without this package.

    It imports prepare.py, which lies next to the file; where no picture file can become the
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
    form = _form(file)
    asked = _asked_onnx(names) if form == "onnx" else _asked_stablehlo(names)
    lines = [_IMPORTED[form]]
    if form == "stablehlo" or not pictures:
        lines.insert(0, "import numpy as np")
    if pictures:
        lines.append("from prepare import prepare")
    lines += ["", *_opened(file), f"images = {made}", *asked]
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
