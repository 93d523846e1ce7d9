"""What a model card says of the network itself: its name, what it takes and gives, its limits."""

from collections.abc import Sequence

import jax

import mnist_flax
from mnist_flax.data import preparation
from mnist_flax.data.sample import NAME as SAMPLE
from mnist_flax.export.licences import is_known
from mnist_flax.export.markdown import json_of, table_of
from mnist_flax.export.network import Network, tells_classes
from mnist_flax.export.prepare_file import PREPARE_FILE, takes_pictures
from mnist_flax.use.restore import Restored


def title(restored: Restored, network: Network) -> str:
    """Says which network it is, what it does, and how large it is."""
    config, state = restored.config, restored.state
    name = (config.model if gives_logits(restored) else config.task).name
    if network.given == "latents":
        does = ""
    elif tells_classes(network.outputs, restored.class_names):
        does = f"It tells {len(restored.class_names)} classes of images apart."
    else:
        answers = " and ".join(f"`{name}`" for name in network.names)
        does = f"It answers an image with {answers}, as the task `{config.task.name}` has it."
    if restored.task.sample is not None:
        does = f"{does} `sampler` draws pictures out of latents, standard normal noise.".strip()
    statistics = sum(
        leaf.size
        for path, leaf in jax.tree.leaves_with_path(restored.variables)
        if jax.tree_util.DictKey("batch_stats") in path
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(restored.variables)) - statistics
    running = f" and {statistics:,} running statistics" if statistics else ""
    if network.given == "latents":
        running += ", of which the file holds those that draw"
    taught = ""
    if not restored.task.trains:
        taught = f" It is the mean of the probabilities of {len(config.model.members)} networks."
    elif "network" in config.task:
        taught = f" It was taught by another network, {config.task.network.model.name!r}."
    known, data = is_known(restored.trained_on), restored.trained_on["name"]
    data = data if known else f"data of the user's own, called {data!r}"
    return (
        f"# {name}, trained on {data}\n\n"
        f"{does} {parameters:,} parameters"
        f"{running}, as they were after step {int(state.step):,} of a run of mnist_flax "
        f"{mnist_flax.__version__}.{taught}"
    )


def gives_logits(restored: Restored) -> bool:
    """Whether it is a task whose model gives logits, and whose loss is theirs."""
    return restored.config.task.name in ("classification", "distillation", "ensemble")


def signature(restored: Restored, networks: Sequence[Network]) -> str:
    """Says what goes in and what comes out, by name, type and shape."""
    lines, network = [], networks[0]
    for each in networks:
        kind = "uint8, 0 to 255" if each.given == "images" else "float32, standard normal"
        lines.append((f"input of {each.stem}", f"`{each.given}`", kind, _shape(each.inputs)))
        lines += [
            (f"output of {each.stem}", f"`{name}`", str(form.dtype), _shape(form))
            for name, form in each.outputs.items()
        ]
    if len(networks) == 1:
        lines = [(line[0].partition(" ")[0], *line[1:]) for line in lines]
    table = table_of(("", "name", "type", "shape"), lines)
    if network.given == "latents":
        return f"{table}\n\nAny number at a time. Pictures: rows, columns, channels, in [0, 1]."
    scaling = "Scaling to [0, 1]" if gives_logits(restored) else "Whatever scales them"
    told = f"Any number of images at a time: rows, columns, channels. {scaling} is inside."
    if len(networks) > 1:
        told += " Pictures that are drawn are in [0, 1]."
    if len(network.names) > 1:
        told += " The StableHLO file gives a dict of the outputs, the ONNX file each by its name."
    if tells_classes(network.outputs, restored.class_names):
        names = json_of(list(restored.class_names), indent=None)
        told += f" The probabilities of an image add up to 1 and are in this order:\n\n{names}"
    if takes_pictures(restored.image_shape):
        made = preparation.told(restored.preparation, restored.image_shape)
        told += f"\n\n`{PREPARE_FILE}` makes such an image of a PNG or JPEG file: {made}."
    return f"{table}\n\n{told}"


def _shape(form: jax.ShapeDtypeStruct) -> str:
    return f"[{', '.join(map(str, form.shape))}]"


def limits(restored: Restored, network: Network) -> str:
    """Says what it was not made for, and not tried on."""
    if network.given == "latents":
        return _limits_of_drawings()
    height, width, channels = restored.image_shape
    kind = "grey" if channels == 1 else f"{channels}-channel"
    if tells_classes(network.outputs, restored.class_names):
        answers = (
            f"It answers with one of its {len(restored.class_names)} classes, whatever the image "
            "shows, and may be sure of it."
        )
    else:
        answers = "It answers whatever the image shows, even one that it knows nothing of."
    if takes_pictures(restored.image_shape):
        how = f"`{PREPARE_FILE}` does what it can"
    else:
        how = "cut, scaled, its colours as in those"
    lines = [
        answers,
        f"It takes {kind} images of {height}×{width} that look like those it was trained on. A "
        f"photograph has to be made so first: {how}.",
        "The figures above are for the images named there. Other writers, cameras or scanners "
        "were not tried; nor were images that someone changed to deceive it.",
        "It was made to learn and to teach with, not to decide anything about people: no cheques, "
        "ballots, forms or findings without someone who looks.",
    ]
    if is_known(restored.trained_on) and restored.trained_on["name"] in ("mnist", SAMPLE):
        lines.insert(
            2, "MNIST is light ink on black: give it dark ink on white, unprepared, and it is lost."
        )
    return "\n".join(f"- {line}" for line in lines)


def _limits_of_drawings() -> str:
    lines = (
        "It draws what looks like the images it was trained on, and nothing says what it will "
        "draw: some of its pictures show nothing that has a name.",
        "What is drawn may lie close to an image that it was trained on.",
        "It was made to learn and to teach with. No drawing of it is anybody's handwriting.",
    )
    return "\n".join(f"- {line}" for line in lines)
