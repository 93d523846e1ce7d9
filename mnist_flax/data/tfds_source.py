"""TFDS directories without TensorFlow: reading prepared ones, and preparing our own.

The only importer of tensorflow_datasets, where it is used. TFDS's own builders of these datasets
need TensorFlow to prepare (not to read) them; the one here does not. Its directories carry names
of their own, `mnist_array_record` for `mnist`: array_record files under TFDS's name would break
`tfds.load('mnist')`, which expects tfrecord files there. Anyone's
`tfds.data_source('mnist_array_record')` reads them.
"""

import contextlib
import importlib.util
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_flax.data import folder, published, tfds_records
from mnist_flax.data.dataset import Raw, Split
from mnist_flax.data.download import Remote, Unavailable
from mnist_flax.errors import UsageError, UserError

OWN_SUFFIX = "_array_record"
OWN_VERSION = "1.0.0"

_INFO = "dataset_info.json"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def read_prepared(
    name: str,
    data_dir: Path,
    *,
    stream: bool = False,
    report: Callable[[str], None] = print,
) -> tuple[Raw | None, tuple[str, ...]]:
    """Reads the newest prepared version of a dataset that can be read without TensorFlow.

    `data_dir` is TFDS's root, `<root>/<name>` or `<root>/<name>/<version>`. Returns its splits,
    images uint8 [N, H, W, C] and labels int32 [N], or None, and a note where versions in another
    file format were passed over. With `stream` pictures are decoded when they are asked for, and
    `report` gets a line before all records are read for their labels, once. Raises UserError for a
    damaged directory.
    """
    other = []
    for directory in _versions(name, data_dir):
        info = _read_info(directory)
        formats = {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}
        if "array_record" not in formats:
            need = "TensorFlow" if "tfrecord" in formats else "other packages"
            other.append(f"{directory} holds {min(formats)} files, which need {need} to read")
        elif importlib.util.find_spec("array_record") is None:
            other.append(f"{directory} needs the package array_record to read (Linux only)")
        else:
            return _read_version(directory, stream, report), _passed_over(other)
    return None, _passed_over(other)


def _passed_over(reasons: list[str]) -> tuple[str, ...]:
    return (f"{'; '.join(reasons)}: passed over.",) if reasons else ()


def _versions(name: str, data_dir: Path) -> list[Path]:
    """Returns the prepared directories of a dataset: TFDS's own before ours, newest first."""
    if (data_dir / _INFO).is_file():
        held = _read_info(data_dir).get("name")
        if held not in (name.split("/")[0], name + OWN_SUFFIX):
            message = f"{data_dir} is the dataset {held!r}, but config.data.name is {name!r}."
            raise UsageError(f"{message} Change one of them.")
        return [data_dir]
    found = []
    for folder_name in (name, name + OWN_SUFFIX):
        # A preparation in progress, or killed, has another name: incomplete.<letters>_1.0.0.
        infos = (root_of(data_dir) / folder_name).glob(f"*/{_INFO}")
        versions = [info.parent for info in infos if _VERSION.fullmatch(info.parent.name)]
        versions.sort(key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)
        found += versions
    return found


def root_of(data_dir: Path) -> Path:
    """Returns TFDS's root, given it, a dataset's directory in it or a version's in that."""
    if (data_dir / _INFO).is_file():
        return data_dir.parent.parent
    return data_dir.parent if any(data_dir.glob(f"*.*.*/{_INFO}")) else data_dir


def _read_info(directory: Path) -> dict[str, Any]:
    info = _read_json(directory / _INFO)
    formats = [info.get("fileFormat", "tfrecord"), *_list(info.get("alternativeFileFormats", []))]
    if not all(isinstance(name, str) for name in formats):
        raise UserError(f"{directory / _INFO}: names no file format. Delete it or prepare it anew.")
    return info


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = str(error)[:160]
        raise UserError(f"{path} cannot be read: {reason}. Delete it or prepare it anew.") from None


def _refuse_foreign_classes(path: Path, features: Any) -> None:
    """Raises UserError for features of other packages: TFDS would import, so execute, them."""
    for key, value in features.items() if isinstance(features, dict) else ():
        name = str(value)
        if key == "pythonClassName" and not name.startswith("tensorflow_datasets.core.features."):
            raise UserError(
                f"{path}: {name[:80]!r} is no feature of TFDS's own, and is not imported. "
                "Prepare the data with features of TFDS."
            )
        for inner in _list(value):
            _refuse_foreign_classes(path, inner)


def _read_version(
    directory: Path, stream: bool = False, report: Callable[[str], None] = print
) -> Raw:
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    features_file = directory / "features.json"
    _refuse_foreign_classes(features_file, _read_json(features_file))
    try:
        builder = tfds.builder_from_directory(directory)
        features = builder.info.features
        if not _fits(features, tfds):
            want = "an `image` of uint8 and fixed size and a whole number `label`"
            raise UserError(f"{directory}: want {want}, got {' '.join(str(features).split())}.")
        # Decoding by ourselves is a third faster, and silent about an absent OpenCV.
        sources = builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
        shape = features["image"].shape
        read = tfds_records.streamed if stream else tfds_records.read_all
        splits = read(sources, shape, directory, report)
    except (*tfds_records.DAMAGE, SyntaxError, ParseError, DecodeError) as error:
        raise tfds_records.damaged(directory, error) from error
    names = getattr(features["label"], "names", None)
    if names is None:
        highest = max(int(split.labels.max()) for split in splits.values())
        names = [str(number) for number in range(highest + 1)]
    return Raw(splits, tuple(names), f"prepared TFDS directory {directory}")


def _fits(features: Any, tfds: Any) -> bool:
    names = {*features} if isinstance(features, tfds.features.FeaturesDict) else set()
    if not {"image", "label"} <= names:
        return False
    image, label = features["image"], features["label"]
    fixed = isinstance(image, tfds.features.Image) and None not in image.shape
    whole = label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    return fixed and image.np_dtype == np.uint8 and whole


def prepare(
    name: str,
    data_dir: Path,
    report: Callable[[str], None],
    remotes: Mapping[str, Remote] | None = None,
) -> Raw:
    """Writes a dataset that is downloaded (published.py) as a TFDS directory, and reads that.

    For those who want one: nothing here needs it. What is there already is not made again.

    Raises:
      Unavailable: as published.fetch() does, or without array_record.
      UserError: likewise.
    """
    root = root_of(data_dir)
    directory = root / (name + OWN_SUFFIX) / OWN_VERSION
    if directory.is_dir():  # TFDS renames it into place when it is whole
        return _read_version(directory)
    if importlib.util.find_spec("array_record") is None:
        raise Unavailable("preparing needs the package array_record (Linux only)")
    raw = published.fetch(name, root, report, remotes)
    report(f"Preparing {name} in {directory} (once) ...")
    try:
        _write(raw, name, root)
    except (OSError, RuntimeError) as error:
        if not directory.is_dir():  # else another process was faster
            raise Unavailable(f"{root} cannot be written: {error}") from error
    return _read_version(directory)


def _write(raw: Raw, name: str, root: Path) -> None:
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version(OWN_VERSION)

        def _info(self) -> Any:
            image = tfds.features.Image(shape=raw.splits["train"].images.shape[1:])
            label = tfds.features.ClassLabel(names=list(raw.class_names))
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            # disable_shuffling keeps the order of the files, so that train[5000:] is the same
            # images whatever they are read from.
            return tfds.core.DatasetInfo(
                builder=self,
                features=features,
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(data) for split, data in raw.splits.items()}

        def _generate_examples(self, data: Split) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, image in enumerate(np.asarray(data.images)):
                # PNG bytes: given an array, the Image feature would call TensorFlow to encode it.
                yield index, {"image": folder.encode(image), "label": int(data.labels[index])}

    Builder.name = name + OWN_SUFFIX
    hidden = io.StringIO()  # TFDS prints, and draws bars, whatever its logging level
    with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
        Builder(data_dir=root, file_format="array_record").download_and_prepare()
