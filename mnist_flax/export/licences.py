"""Under which licence the data of a run are, as far as their name and form tell."""

from collections.abc import Mapping
from typing import Any

from mnist_flax.data.dataset import CLASS_NAMES
from mnist_flax.data.sample import NAME as SAMPLE

_MNIST = "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"
_LICENCES = {
    "mnist": _MNIST,
    SAMPLE: _MNIST,
    "fashion_mnist": "MIT, Zalando SE",
    "kmnist": "CC BY-SA 4.0, ROIS-DS Center for Open Data in the Humanities",
}


def is_known(trained_on: Mapping[str, Any]) -> bool:
    """Says whether a run's data have the name and the form of published ones.

    A user's own are called mnist, too, unless config.data.name says otherwise.

    Args:
      trained_on: as workdir/metadata.py describes the data.
    """
    name, classes = trained_on["name"], tuple(trained_on["class_names"])
    published = classes == CLASS_NAMES.get(name) and trained_on["image_shape"] == [28, 28, 1]
    own = trained_on["source"].startswith("picture folders") or trained_on.get("handed_in")
    return name == SAMPLE or (published and not own)


def data_licence(trained_on: Mapping[str, Any]) -> str:
    """Returns the licence of a run's data; 'unknown' for a user's own."""
    name = trained_on["name"]
    if not is_known(trained_on):
        return "unknown: data of the user's own"
    if name == SAMPLE:
        return f"{_LICENCES[name]} (5,000 digits of MNIST)"
    return f"{_LICENCES[name]} (that of {name}; whether these files are {name} was not checked)"
