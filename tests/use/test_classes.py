"""A network judged on data whose classes have other names, or another order."""

import pytest

from mnist_flax.data.dataset import CLASS_NAMES
from mnist_flax.data.folder import encode
from mnist_flax.data.idx import read_directory
from mnist_flax.errors import UserError
from mnist_flax.training import train
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.restore import restore
from mnist_flax.use.run_data import load_data

KMNIST = CLASS_NAMES["kmnist"]


def write_folders(directory, digits, names):
    """The digits as pictures in class folders."""
    for split, part in read_directory(digits, "kmnist").splits.items():
        for i, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            path = directory / split / names[label] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image))
    return directory


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A run on digits that are called by kmnist's names, which are not in alphabetical order."""
    from tiny import get_config

    config, workdir = get_config(), tmp_path_factory.mktemp("trained")
    config.data.data_dir, config.data.name, config.num_steps = str(digits), "kmnist", 40
    train(config, workdir)
    return workdir


def judged(workdir, directory):
    restored = restore(workdir, "latest", {"data.data_dir": str(directory)})
    dataset = load_data(restored, str)
    return dataset, evaluate_restored(restored, dataset.eval).means


def test_classes_in_another_order_are_matched_by_name(trained, digits, tmp_path):
    own, before = judged(trained, digits)
    assert own.notes == ()
    dataset, means = judged(trained, write_folders(tmp_path, digits, KMNIST))
    assert means["accuracy"] == before["accuracy"] > 0.3
    assert means["loss"] == pytest.approx(before["loss"], rel=1e-5)  # summed in another order
    assert dataset.class_names == KMNIST != tuple(sorted(KMNIST))
    assert dataset.notes == (
        f"picture folders in {tmp_path}: the classes lie in another order than the run's; matched "
        "by name.",
    )
    for split, part in (("train", dataset.train), ("eval", dataset.eval)):
        assert sorted(part.labels) == sorted(getattr(own, split).labels)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"class {i}" for i in range(10)], "'class 0', 'class 1', 'class 2', 'class 3', 'class 4"),
        ([*KMNIST[:9], "wa"], "its classes are 'wa', 'ha', 'ki', 'ma', 'na' and 5 more; the run"),
    ],
)
def test_classes_of_other_names_are_refused(trained, digits, tmp_path, names, told):
    with pytest.raises(UserError) as error:
        judged(trained, write_folders(tmp_path, digits, names))
    message = str(error.value)
    assert message.startswith(f"picture folders in {tmp_path}: its classes are ")
    assert told in message
    assert message.endswith("Give them the same names, or choose other data with config.data.…")
    assert "\n" not in message
