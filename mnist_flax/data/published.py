"""The datasets that are downloaded: four IDX files each, verified, and then read as they are."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from mnist_flax.data import idx
from mnist_flax.data.arrays import class_names_of
from mnist_flax.data.dataset import Raw
from mnist_flax.data.download import Remote, Unavailable, download, is_whole
from mnist_flax.data.idx_names import STEMS


def fetch(
    name: str,
    root: Path,
    report: Callable[[str], None],
    remotes: Mapping[str, Remote] | None = None,
) -> Raw:
    """Returns a dataset from root/downloads/<name>, where it is downloaded to unless it is there.

    Args:
      name: of one that TFDS knows by its checksums: 'mnist', 'fashion_mnist' or 'kmnist'.
      root: is created.
      report: gets a line about a download, once its first bytes have come.
      remotes: its files; None for those of known_remotes().

    Raises:
      Unavailable: without network, with one that stalls, or where nothing can be written.
      UserError: a file is not the one published; nothing of it is kept.
    """
    folder, remotes = root / "downloads" / name, remotes or known_remotes(name)
    try:
        wanted = {n: r for n, r in remotes.items() if not is_whole(folder / n, r)}
        size = sum(remote.size for remote in wanted.values()) / 1e6
        messages = [f"Downloading {name} ({size:.1f} MB) to {folder} ..."]

        def begun() -> None:
            while messages:
                report(messages.pop())

        for file_name, remote in wanted.items():
            download(remote, folder / file_name, begun)
    except OSError as error:
        raise Unavailable(f"{root} cannot be written: {error}") from error
    # These very files, which were verified, and not what else may lie next to them.
    splits = {
        split: idx.read_pair(*(folder / f"{stem}.gz" for stem in stems))[0]
        for split, stems in STEMS.items()
    }
    return Raw(splits, class_names_of(name, splits), f"IDX files in {folder}")


def known_remotes(name: str) -> dict[str, Remote]:
    """Returns where TFDS has a known dataset from, by file name, out of its own checksum files.

    TFDS is not imported for it: that takes seconds.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or spec.origin is None:
        raise Unavailable("the addresses come with tensorflow-datasets, which is not installed")
    table = Path(spec.origin).parent / "url_checksums" / f"{name}.txt"
    rows = (line.split("\t") for line in table.read_text(encoding="utf-8").splitlines())
    return {file: Remote(url, int(size), sha256) for url, size, sha256, file in rows}
