"""Draws the pictures of docs/TOUR.md and docs/PERFORMANCE.md.

    python docs/pictures.py --tour                          digits that are changed
    python docs/pictures.py --times=FILE,FILE               what time_to_accuracy.py wrote
    python docs/pictures.py --film=runs/dcgan --frames=25   what a run has drawn as it went
    python docs/pictures.py --accuracy=FILE,FILE            what accuracy.py wrote, then a peer's
    python docs/pictures.py --mistakes=runs/ensemble        the digits that a run is wrong on

The first half of docs/TOUR.md has its pictures from start_pictures.py. Needs matplotlib:
pip install -e '.[benchmarks]'.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from mnist_flax import restore
from mnist_flax.data import augment, distort
from mnist_flax.data.encoding import film
from mnist_flax.data.sample import read_sample
from mnist_flax.use.run_data import load_data
from mnist_flax.workdir.kept_pictures import kept_pictures

FOLDER = Path(__file__).resolve().parent
TITLES = ("as it is", "down", "up", "right", "left", "flipped")


def main() -> None:
    """Draws what there is something to draw from."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tour", action="store_true", help="digits that are changed")
    parser.add_argument("--times", default="", help="JSON files, with commas between them")
    parser.add_argument("--film", type=Path, help="a run that draws")
    parser.add_argument("--frames", type=int, default=25, help="of the film, at most")
    parser.add_argument("--accuracy", default="", help="JSON files, with commas between them")
    parser.add_argument("--mistakes", type=Path, help="a run that predicts classes")
    arguments = parser.parse_args()
    if arguments.accuracy:
        measured, *peers = map(_read_json, arguments.accuracy.split(","))
        draw_accuracy(measured["recipes"], peers)
    if arguments.mistakes:
        draw_mistakes(arguments.mistakes)
    if arguments.film:
        draw_film(arguments.film, arguments.frames)
    if arguments.times:
        draw_times([_read_json(name) for name in arguments.times.split(",")])
    if arguments.tour:
        draw_tour()


def draw_tour() -> None:
    """Digits that are changed, of the second half of docs/TOUR.md."""
    digits = read_sample().splits["test"].images
    draw_extended(digits[[22, 47, 34]])
    draw_random(digits[34])


def draw_film(workdir: Path, most: int) -> None:
    """What a run has drawn out of noise, evaluation by evaluation: a film, and its last picture."""
    kept = kept_pictures(workdir, "samples")
    steps = sorted(kept)
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    frames = [kept[steps[place]] for place in places.tolist()]
    for name, content in ((".webp", film(frames)), (".png", frames[-1].read_bytes())):
        path = FOLDER / f"{workdir.name}_samples{name}"
        path.write_bytes(content)
        print(f"Wrote {path}, {len(content):,} bytes, of steps {steps[places[0]]} to {steps[-1]}")


def draw_times(measured: list[dict[str, Any]]) -> None:
    """Test accuracy over seconds from Enter: a dot for each seed, a line for each peer's run."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for result in measured:
        runs = result["runs"]
        seconds = [sum(run["parts"].values()) for run in runs]
        axes.scatter(
            seconds,
            [100 * run["accuracy"] for run in runs],
            s=14,
            label=Path(result["config"]).stem,
        )
    peers = [run.get("torch_history") for result in measured for run in result["runs"]]
    for number, history in enumerate(filter(None, peers)):
        _, accuracies, seconds = zip(*history, strict=True)
        label = "PyTorch's example, an epoch a dot" if number == 0 else None
        axes.plot(seconds, [100 * a for a in accuracies], "k.-", linewidth=0.8, label=label)
    axes.set(xlabel="seconds from Enter", ylabel="test accuracy, %", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    _save(figure, "time_to_accuracy.png")


def draw_accuracy(recipes: list[dict[str, Any]], peers: list[dict[str, Any]]) -> None:
    """Wrong test digits over training seconds: a dot for each run, a line for a peer's epochs."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for recipe in recipes:
        wrong = [100 * (1 - accuracy) for accuracy in recipe["accuracies"]]
        axes.scatter(recipe["seconds"], wrong, s=22, label=recipe["name"], zorder=3)
    for name, seconds, accuracy in _tutorials():
        axes.scatter(seconds, 100 * (1 - accuracy), s=14, color="0.6", zorder=2)
        axes.annotate(name, (seconds, 100 * (1 - accuracy)), (5, -3), textcoords="offset points")
    for number, peer in enumerate(peers):
        _, accuracies, seconds = zip(*peer["history"], strict=True)
        wrong = [100 * (1 - accuracy) for accuracy in accuracies]
        label = "PyTorch's example, an epoch a dot" if number == 0 else None
        axes.plot(seconds, wrong, "k.-", linewidth=0.8, label=label)
    axes.set(xlabel="seconds of training, on two cores", ylabel="wrong of the test digits, %")
    axes.set(xscale="log", yscale="log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    _save(figure, "accuracy.png")


def _tutorials() -> list[tuple[str, float, float]]:
    """Returns (name, seconds, accuracy) of the tutorials, as RESULTS.md has them."""
    found = []
    for line in (FOLDER / "RESULTS.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 11 and cells[0].startswith("`"):
            accuracy, minutes = (_middle(cells[place]) for place in (5, 9))
            found.append((cells[0].strip("`"), 60 * minutes, accuracy))
    return found


def _middle(cell: str) -> float:
    return float(np.mean([float(number) for number in cell.split("–")]))


def draw_mistakes(workdir: Path) -> None:
    """Each digit that a run is wrong on: its label, what it was taken for, and how surely."""
    run = restore(workdir)
    split = load_data(run, lambda *lines: None).eval
    answers = run.predict(split.images)
    wrong = np.flatnonzero(answers.classes != split.labels)
    rows = -(-len(wrong) // 8)
    figure, axes = plt.subplots(rows, 8, figsize=(6.4, 1.05 * rows), layout="constrained")
    for cell in axes.flat:
        cell.axis("off")
    for cell, index in zip(axes.flat, wrong, strict=False):
        cell.imshow(split.images[index, ..., 0], cmap="gray")
        taken, sure = answers.classes[index], answers.probabilities[index].max()
        cell.set_title(f"{split.labels[index]}, not {taken}: {100 * sure:.0f} %", fontsize=7)
    _save(figure, "accuracy_mistakes.png")


def draw_extended(images: np.ndarray) -> None:
    """The six parts of the extended set: images uint8 [N, 28, 28, 1], a row each."""
    figure, axes = plt.subplots(
        len(images), 6, figsize=(6.4, 1.15 * len(images)), layout="constrained"
    )
    for part, title in enumerate(TITLES):
        made = augment.extend(jnp.asarray(images), jnp.full(len(images), part))
        for row, image in enumerate(np.asarray(made)):
            _show(axes[row, part], image[..., 0], title if row == 0 else "")
    _save(figure, "tour_extended.png")


def draw_random(image: np.ndarray) -> None:
    """What the random functions make of one image uint8 [28, 28, 1], eight draws each."""
    images, key = jnp.tile(image, (8, 1, 1, 1)), jax.random.key(0)
    rows = {
        "rotation, 20°": distort.random_rotation(key, images, max_degrees=20.0),
        "scaling, 1.4": distort.random_scaling(key, images, max_factor=1.4),
        "shift, 4 pixels": distort.random_shift(key, images, max_pixels=4),
    }
    figure, axes = plt.subplots(3, 8, figsize=(6.4, 2.8), layout="constrained")
    for row, (title, made) in zip(axes, rows.items(), strict=True):
        for column, cell in enumerate(row):
            _show(cell, made[column, ..., 0], title if column == 0 else "", loc="left")
    _save(figure, "tour_random.png")


def _read_json(name: str) -> dict[str, Any]:
    return json.loads(Path(name).read_text())


def _show(axes: Axes, image: np.ndarray, title: str = "", loc: str = "center") -> None:
    axes.imshow(image, cmap="gray")
    axes.set(xticks=[], yticks=[])  # the frame stays: it shows what was shifted
    if title:
        axes.set_title(title, fontsize=8, loc=loc)


def _save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FOLDER / name, dpi=100)
    plt.close(figure)
    print(f"Wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
