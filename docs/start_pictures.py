"""Draws the pictures of the first half of docs/TOUR.md.

    python docs/start_pictures.py                           those that need no run
    python docs/start_pictures.py --workdir=runs/speedrun   a finished run of the speedrun
    python docs/start_pictures.py --few=runs/few            the run that overfits

Blue is negative and red positive, as in a report. Needs matplotlib: pip install -e '.[benchmarks]'.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from flax import linen as nn
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from mnist_flax.data.sample import read_sample
from mnist_flax.report import pixels, plots
from mnist_flax.use.features import feature_maps
from mnist_flax.use.run import restore

FOLDER = Path(__file__).resolve().parent
SEVEN = 47  # of the sample's test digits
CROP = (slice(6, 18), slice(7, 21))  # where its bar meets its stem
PLACE = (8, 12)  # row and column of the window's middle
UPPER_EDGES = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
ON_BLACK = "#d4a72c"  # frames on images


def main() -> None:
    """Draws what there is something to draw from."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, help="a run of configs/speedrun.py")
    parser.add_argument("--few", type=Path, help="a run on few images")
    arguments = parser.parse_args()
    image = read_sample().splits["test"].images[SEVEN]
    with plots.theme("light"), mpl.rc_context({"axes.grid": False, "font.size": 9}):
        draw_pixels(image[..., 0])
        draw_window(image[..., 0])
        draw_backpropagation(pixel=0.5, w=4.0, v=0.5, c=-1.0)
        draw_optimizers()
        if arguments.workdir:
            draw_filters(arguments.workdir, image)
    with plots.theme("light"):
        if arguments.few:
            draw_overfitting(arguments.few)


def draw_pixels(image: np.ndarray) -> None:
    """An image uint8 [28, 28] as it looks, and a part of it as the numbers that it is."""
    figure, (whole, part) = plt.subplots(1, 2, figsize=(6.4, 2.9), width_ratios=(1, 1.25))
    _image(whole, image)
    rows, columns = CROP
    _frame(whole, rows.start, columns.start, image[CROP].shape, ON_BLACK)
    _numbers(part, image[CROP], pixels.photo(image[CROP][..., None]), size=6)
    _save(figure, "tour_pixels.png")


def draw_window(image: np.ndarray) -> None:
    """A kernel on an image uint8 [28, 28]: one place, and the map of all places."""
    row, column = PLACE
    window = image[row - 1 : row + 2, column - 1 : column + 2].astype(int)
    products = window * UPPER_EDGES
    conv = nn.Conv(1, (3, 3), use_bias=False)
    kernel = jnp.asarray(UPPER_EDGES, jnp.float32)[:, :, None, None]
    grey = jnp.asarray(image, jnp.float32)[None, :, :, None]
    made = np.asarray(conv.apply({"params": {"kernel": kernel}}, grey))[0, :, :, 0]
    if made[PLACE] != products.sum():
        raise AssertionError("the convolution is another sum than the one that is drawn")

    figure, axes = plt.subplots(1, 5, figsize=(6.4, 1.75), width_ratios=(2, 1.1, 1.1, 1.1, 2))
    _image(axes[0], image)
    _frame(axes[0], row - 1, column - 1, (3, 3), ON_BLACK)
    _numbers(axes[1], window, pixels.photo(window.astype(np.uint8)[..., None]), size=8)
    _numbers(axes[2], UPPER_EDGES, pixels.signed(UPPER_EDGES, 2.0), size=8)
    _numbers(axes[3], products, pixels.signed(products, 510.0), size=7)
    _image(axes[4], pixels.signed(made, float(np.abs(made).max())))
    _frame(axes[4], row, column, (1, 1), "black")
    titles = ("image", "window  ×", "kernel  =", "products", "map")
    for cell, title in zip(axes, titles, strict=True):
        cell.set_title(title, fontsize=9)
    axes[3].set_xlabel(f"sum: {_plain(int(products.sum()))}")
    _save(figure, "tour_window.png")


def draw_backpropagation(pixel: float, w: float, v: float, c: float) -> None:
    """The example of the page: numbers on their way forward, and gradients on their way back."""
    h, z = max(w * pixel, 0.0), v * max(w * pixel, 0.0) + c

    def after(z: float) -> jax.Array:
        return -jax.nn.log_sigmoid(z)

    def from_h(h: float) -> jax.Array:
        return after(v * h + c)

    def whole(w: float, v: float, c: float) -> jax.Array:
        return after(v * nn.relu(w * pixel) + c)

    d_w, d_v, d_c = jax.grad(whole, argnums=(0, 1, 2))(w, v, c)
    columns = (
        ("pixel x", pixel, None),
        ("h", h, jax.grad(from_h)(h)),
        ("z", z, jax.grad(after)(z)),
        ("loss", float(after(z)), 1.0),
    )
    forward = (
        f"× w = {_plain(w)},\nthen ReLU",
        f"× v = {_plain(v)},\n+ c = {_plain(c)}",
        "−log p",
    )
    back = (f"w: {_plain(d_w)}", f"v: {_plain(d_v)}   c: {_plain(d_c)}", "")
    figure, axes = plt.subplots(figsize=(6.4, 1.6))
    axes.set(xlim=(-0.5, 9.6), ylim=(-1.45, 1.2))
    axes.set_axis_off()
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#f6f8fa", "edgecolor": "#6e7781"}
    for place, (name, value, gradient) in enumerate(columns):
        x = 3 * place
        axes.text(x, 0.45, f"{name}\n{_plain(value)}", ha="center", va="center", bbox=box)
        if gradient is not None:
            colour = "C0" if gradient < 0 else "black"
            axes.text(x, -0.7, _plain(gradient), ha="center", va="center", color=colour)
    for place, (there, here) in enumerate(zip(forward, back, strict=True)):
        left, right = 3 * place + 0.75, 3 * place + 2.3
        arrow = {"arrowstyle": "->", "color": "#24292f"}
        axes.annotate("", (right, 0.45), (left, 0.45), arrowprops=arrow)
        axes.text(3 * place + 1.5, 0.95, there, ha="center", va="center", fontsize=8)
        arrow = {"arrowstyle": "->", "color": "C0", "linestyle": "--"}
        axes.annotate("", (left, -0.7), (right, -0.7), arrowprops=arrow)
        axes.text(3 * place + 1.5, -1.15, here, ha="center", va="center", color="C0")
    axes.text(-0.5, -0.7, "gradients", color="C0", va="center")
    _save(figure, "tour_backpropagation.png")


def draw_optimizers() -> None:
    """Sixty steps of each optimizer down the same valley, which is steep across."""
    optimizers = {
        "SGD, η = 0.03": optax.sgd(0.03),
        "SGD with momentum, η = 0.01": optax.sgd(0.01, momentum=0.9),
        "RMSProp, η = 0.1": optax.rmsprop(0.1, decay=0.9),
        "Adam, η = 0.2": optax.adam(0.2),
    }
    curvature, start = jnp.array([1.0, 60.0]), jnp.array([-4.0, 1.0])

    def height(place: jax.Array) -> jax.Array:
        return 0.5 * (curvature * place**2).sum(-1)

    grid = np.stack(np.meshgrid(np.linspace(-4.6, 1.8, 120), np.linspace(-1.5, 1.5, 80)), -1)
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 3.4), sharex=True, sharey=True)
    for cell, (name, optimizer) in zip(axes.flat, optimizers.items(), strict=True):
        path = _path(optimizer, jax.grad(height), start, steps=60)
        heights = np.asarray(height(jnp.asarray(grid)))
        cell.contour(
            *np.moveaxis(grid, -1, 0), heights, levels=10, colors="#d0d7de", linewidths=0.7
        )
        cell.plot(*path.T, color="C0", marker="o", markersize=2, linewidth=1)
        cell.plot(0, 0, marker="x", color="black", markersize=6)
        cell.set_title(name, fontsize=9)
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    _save(figure, "tour_optimizers.png")


def _path(
    optimizer: optax.GradientTransformation,
    gradient: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    steps: int,
) -> np.ndarray:
    """Returns the places [steps + 1, 2] that an optimizer comes through."""
    place, state, path = start, optimizer.init(start), [start]
    for _ in range(steps):
        updates, state = optimizer.update(gradient(place), state, place)
        place = optax.apply_updates(place, updates)
        path.append(place)
    return np.stack(path)


def draw_overfitting(workdir: Path) -> None:
    """The loss of a run on few images, on these and on those held out."""
    run = restore(workdir)
    rows = {split: run.rows(split) for split in ("train", "eval")}
    lines = {split: (table["step"], table["loss"]) for split, table in rows.items()}
    figure = plots.curves(lines, "loss", yscale="log")
    figure.axes[0].yaxis.set_major_locator(LogLocator())  # five decades have no room for more
    _save(figure, "tour_overfitting.png")


def draw_filters(workdir: Path, image: np.ndarray) -> None:
    """The kernels of a speedrun's first layer, and what each sees in an image [28, 28, 1]."""
    run = restore(workdir)
    kernel = np.asarray(run.state.params["conv1"]["kernel"])  # [5, 5, 1, 16]
    maps = feature_maps(run.model, run.variables, jnp.asarray(image[None]))["norm1"]
    seen = np.asarray(nn.relu(maps))[0]  # [14, 14, 16]
    figure, axes = plt.subplots(4, 8, figsize=(6.4, 3.3))
    for number in range(kernel.shape[-1]):
        row, column = divmod(number, 8)
        _image(axes[2 * row, column], pixels.signed(kernel[..., 0, number], np.abs(kernel).max()))
        _image(axes[2 * row + 1, column], pixels.signed(seen[..., number], seen.max()))
    _save(figure, "tour_filters.png")


def _image(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def _frame(axes: Axes, top: int, left: int, shape: tuple[int, ...], colour: str) -> None:
    height, width = shape
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.5))


def _numbers(axes: Axes, values: np.ndarray, colours: np.ndarray, size: int) -> None:
    """Writes numbers [h, w] into cells of these colours, uint8 [h, w, 4]."""
    _image(axes, colours)
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if colours[row, column, :3].mean() < 128 else "black"
        text = _plain(int(value))
        axes.text(column, row, text, ha="center", va="center", size=size, color=ink)


def _plain(value: float) -> str:
    return f"{float(value):.3g}".replace("-", "−")


def _save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / name, dpi=130, transparent=False)
    plt.close(figure)
    print(f"Wrote {FOLDER / name}, {(FOLDER / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
