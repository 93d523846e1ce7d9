"""How good drawings are: what a network that knows the classes, the judge, makes of them.

The judge is a run of its own, of a classification, that no drawing network ever sees. Drawings are
compared with images by the features that its last dense layer reads.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.config.paths import expanded
from mnist_flax.core.evaluation import Measure
from mnist_flax.core.task import Variables
from mnist_flax.data.augment import normalize
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.streamed_images import Images, blocks
from mnist_flax.errors import UsageError, UserError
from mnist_flax.use.prediction import is_classification
from mnist_flax.use.restore import Restored, restore
from mnist_flax.workdir.digests import state_digest

# A judge that was trained with label smoothing 0.05 is rarely surer than 0.955, even of images.
CONFIDENT = 0.8
_BATCH = 500


def judge_drawings(config: ConfigDict, dataset: Dataset, images: Images) -> Measure:
    """Builds the measure of drawings that config.task.judge names: a workdir, or '' for none.

    Args:
      config: of the run that draws.
      dataset: its data; drawings are compared with its training images, too.
      images: uint8 [N, H, W, C], that drawings, as many, are compared with.

    Returns:
      A measure of the outputs {'samples': uint8 [N, H, W, C]}; see Judged.

    Raises:
      UsageError: the folder holds no run, or one that does not know these classes.
    """
    name = config.task.get("judge", "")  # a recipe may leave it out
    if not name:
        return Measure(
            "No judge: how good the drawings are is not measured, and nothing chooses a best save. "
            "Train one with the recipe fast995 and name its folder: "
            "config.task.judge=runs/fast995"
        )
    judge = _restored(name, dataset)
    if len(images) < 2:
        raise UsageError(f"config.task.judge={name}: one image is no split to compare with.")
    judged = Judged(judge, dataset.train.images, images)
    digest = state_digest(jax.device_get(judge.variables))
    told = (
        f"Judge: {name}, step {int(judge.state.step):,}, SHA-256 {digest[:16]}…: the "
        f"{len(images):,} images that drawings are compared with are judged once, too."
    )
    return Measure(told, digest, judged.measure)


@dataclass(frozen=True)
class Judged:
    """Drawings, judged next to images.

    Attributes:
      judge: a trained classification.
      train: uint8 [M, H, W, C], which drawings must not copy.
      images: uint8 [N, H, W, C], like which they should be.
    """

    judge: Restored
    train: Images
    images: Images

    def measure(self, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns what is measured of drawings, outputs['samples'] uint8 [N, H, W, C].

        frechet_distance: between the judge's features of drawings and of images (Heusel et al.,
          arXiv 1706.08500, with this judge in the place of Inception).
        frechet_floor: likewise of as many training images: nothing that draws as well as they are
          drawn gets far below it. It depends on the number of images.
        confident_share: the share of drawings that the judge gives a class at 0.8 or more, next to
          that of the images, confident_share_of_images.
        nearest_train: the median distance (L2, pixels in [0, 1]) to the nearest training image; far
          below that of the images, nearest_train_of_images, drawings are copies.
        class_share_<name>: the share of drawings that the judge takes for that class.
        """
        samples = outputs["samples"]
        features, probabilities = self._looked(samples)
        known, beside = self._reference
        shares = np.bincount(probabilities.argmax(-1), minlength=probabilities.shape[-1])
        names = self.judge.class_names
        return {
            "frechet_distance": frechet_distance(moments(features), known),
            "confident_share": _confident_share(probabilities),
            "nearest_train": nearest(samples, self.train),
            **beside,
            **{
                f"class_share_{name}": float(share)
                for name, share in zip(names, shares / len(samples), strict=True)
            },
        }

    @functools.cached_property
    def _reference(self) -> tuple["Moments", dict[str, float]]:
        """The moments of the images' features, and what stands next to drawings: once a run."""
        count = min(len(self.images), len(self.train))
        # Evenly over the training images: files may be sorted by class.
        places = np.linspace(0, len(self.train) - 1, count).round().astype(int)
        features, probabilities = self._looked(self.images)
        known = moments(features)
        floor = frechet_distance(moments(self._looked(self.train[places])[0]), known)
        return known, {
            "frechet_floor": floor,
            "confident_share_of_images": _confident_share(probabilities),
            "nearest_train_of_images": nearest(self.images, self.train),
        }

    def _looked(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Returns the judge's features [N, F] and probabilities [N, classes] of images."""
        parts = [
            jax.device_get(self._look(self.judge.variables, images[at : at + _BATCH]))
            for at in range(0, len(images), _BATCH)
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    @functools.cached_property
    def _look(self) -> Callable[[Variables, np.ndarray], tuple[jax.Array, jax.Array]]:
        look = functools.partial(penultimate, self.judge.model)
        return jax.jit(look, compiler_options=self.judge.compiler_options)


def _confident_share(probabilities: np.ndarray) -> float:
    return float((probabilities.max(-1) >= CONFIDENT).mean())


Moments = tuple[np.ndarray, np.ndarray]


def moments(features: np.ndarray) -> Moments:
    """Returns the mean [F] and the covariance [F, F] of features [N, F], in float64."""
    values = features.astype(np.float64)
    return values.mean(0), np.cov(values, rowvar=False).reshape(values.shape[1], -1)


def frechet_distance(one: Moments, other: Moments) -> float:
    """Returns the squared Fréchet distance of two normal distributions.

    |μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁ C₂)^½); Dowson and Landau, "The Fréchet distance between
    multivariate normal distributions" (1982).
    """
    (mean, cov), (other_mean, other_cov) = one, other
    # tr (C₁ C₂)^½ by the symmetric C₁^½ C₂ C₁^½, which has the same eigenvalues.
    values, vectors = np.linalg.eigh(cov)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other_cov @ root).clip(0)).sum()
    apart = np.square(mean - other_mean).sum()
    return float(apart + np.trace(cov) + np.trace(other_cov) - 2 * shared)


def nearest(images: Images, train: Images) -> float:
    """Returns the median over images of the L2 distance to the nearest training image.

    Args:
      images: uint8 [N, H, W, C]; pixels count from 0 to 1.
      train: uint8 [M, H, W, C].
    """
    # Either may be streamed: the fewer are decoded once, the more once for each block of these.
    return float(np.median(np.concatenate([_nearest(block, train) for _, block in blocks(images)])))


def _nearest(images: np.ndarray, train: Images) -> np.ndarray:
    """The distance of each image to the nearest training image: float32 [N]."""
    found = np.full(len(images), np.inf, np.float32)
    for _, block in blocks(train):
        theirs = block.reshape(len(block), -1).astype(np.float32) / 255
        lengths = np.square(theirs).sum(1)
        for at in range(0, len(images), _BATCH):
            part = slice(at, at + _BATCH)
            ours = images[part].reshape(-1, theirs.shape[1]).astype(np.float32) / 255
            # |a − b|² = |a|² − 2 a·b + |b|², a matrix product.
            squares = (lengths - 2 * ours @ theirs.T).min(1) + np.square(ours).sum(1)
            found[part] = np.minimum(found[part], np.sqrt(squares.clip(0)))
    return found


def penultimate(
    model: nn.Module, variables: Variables, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns what the last dense layer of a classifier reads, and its probabilities.

    Args:
      model: a linen module, run at rest; where it looks at several views of an image, the features
        are those of the first.
      variables: its parameters and running statistics.
      images: uint8 [B, H, W, C].

    Returns:
      float32 [B, F] and [B, classes].

    Raises:
      UsageError: it has no dense layer.
    """
    read: list[jax.Array] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            read.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        logits = cast(jax.Array, model.apply(variables, normalize(images)))
    if not read:
        raise UsageError(
            f"config.task.judge: {type(model).__name__} has no dense layer to look at."
        )
    return read[-1][: len(images)].reshape(len(images), -1), nn.softmax(logits)


def _restored(name: str, dataset: Dataset) -> Restored:
    """Restores the judge. Raises UsageError if it is none for these data."""
    folder = expanded(name, "config.task.judge")
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"config.task.judge={name}: holds no run. Name the folder of a finished "
            "classification, or go on without a judge: config.task.judge=''"
        )
    try:
        judge = restore(folder, "latest", {})
    except UserError as error:
        raise UsageError(f"config.task.judge={name}: {error}") from error
    if not is_classification(judge) or judge.task.model is None:
        raise UsageError(
            f"config.task.judge={name}: its run learns no classes; name one that does."
        )
    ours, theirs = dataset.train.images.shape[1:], judge.image_shape
    if (ours, dataset.class_names) != (theirs, judge.class_names):
        raise UsageError(
            f"config.task.judge={name}: knows images {list(theirs)} of the classes "
            f"{', '.join(judge.class_names)}; these are {list(ours)} of "
            f"{', '.join(dataset.class_names)}. Name a run on the same data."
        )
    return judge
