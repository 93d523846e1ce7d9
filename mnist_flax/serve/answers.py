"""What the server answers: bytes of a picture in, numbers for JSON out."""

import base64
import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mnist_flax.data.pictures import fit_picture
from mnist_flax.data.preparation import Preparation
from mnist_flax.use.features import feature_maps
from mnist_flax.use.prediction import answer_row, answered_classes
from mnist_flax.use.restore import Restored

Answer = Callable[[bytes, bool], dict[str, Any]]


def make_answer(restored: Restored, preparation: Preparation) -> Answer:
    """Compiles the network for one picture.

    Args:
      restored: a network.
      preparation: as fit_picture() takes it.

    Returns:
      answer(data, with_features): `data` are the bytes of a PNG or JPEG file. It raises
      decoding.PictureError and returns what prediction.answer_row() does, {'class': int,
      'class_name': str, 'probabilities': [K], 'class_names': [K], …}, with 'image': what the
      network saw, [H][W] or, in colour, [H][W][3]; and with features 'features': a list of what
      _encoded() makes of each layer, in their order.
    """
    options = restored.compiler_options
    predict = jax.jit(restored.task.predict, compiler_options=options)
    explain = jax.jit(functools.partial(feature_maps, restored.model), compiler_options=options)
    blank = np.zeros((1, *restored.image_shape), np.uint8)
    variables, class_names = restored.state.variables, answered_classes(restored)
    jax.block_until_ready((predict(variables, blank), explain(restored.variables, blank)))

    def answer(data: bytes, with_features: bool) -> dict[str, Any]:
        picture = fit_picture(io.BytesIO(data), preparation, restored.image_shape)
        image = picture.image
        result = jax.device_get(predict(variables, image[None]))
        outputs = {name: values[0] for name, values in result.items()}
        row = answer_row(outputs, class_names, picture)
        row["image"] = (image[..., 0] if image.shape[2] == 1 else image).tolist()
        if with_features:
            row["features"] = _encoded(jax.device_get(explain(restored.variables, image[None])))
        return row

    return answer


def _encoded(maps: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Packs maps into bytes, an eighth of the length that their numbers would have.

    Args:
      maps: {name: float32 [1, h, w, c]}.

    Returns:
      For each layer {'name', 'shape': [c, h, w], 'low', 'high', 'pixels'}: the base64 of c·h·w
      bytes, map after map and row after row; a byte b stands for low + b / 255 · (high - low).
    """
    layers = []
    for name, values in maps.items():
        low, high = float(values.min()), float(values.max())
        scaled = (values[0].transpose(2, 0, 1) - low) * (255 / max(high - low, 1e-30))
        pixels = base64.b64encode(scaled.round().astype(np.uint8).tobytes()).decode()
        shape = scaled.shape
        layers.append({"name": name, "shape": shape, "low": low, "high": high, "pixels": pixels})
    return layers
