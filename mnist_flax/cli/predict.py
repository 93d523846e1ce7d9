"""--mode=predict: what a run says of picture files, or of a whole split."""

import json
import os
import sys

from mnist_flax.cli.flags import FLAGS, Launch, output_file, refuse, workdir
from mnist_flax.cli.hints import say
from mnist_flax.cli.restored import data_of, preparation_of, restore_asked
from mnist_flax.errors import UsageError, UserError


def predict_as_asked(launch: Launch) -> int:
    """Asks a run about pictures, or about a split; returns the exit status."""
    if bool(launch.files) == bool(FLAGS.split) or bool(FLAGS.split) != bool(FLAGS.output):
        raise UsageError(
            "--mode=predict takes either picture files, or --split=test with --output=FILE.npz."
        )
    return _predict_split(launch) if FLAGS.split else _predict_files(launch)


def _predict_split(launch: Launch) -> int:
    refuse(
        {"center"},
        "is for picture files; the images of --split are taken as they are. Leave it out.",
    )
    output = output_file(".npz")
    from mnist_flax.use.prediction import is_classification, predict_split
    from mnist_flax.workdir.known_images import count_known

    restored = restore_asked({**launch.overrides, "data.eval_split": FLAGS.split})
    dataset = data_of(restored)
    outputs = predict_split(restored, dataset.eval, output)
    told = f"{len(dataset.eval.labels):,} images"
    if is_classification(restored):
        told += f", accuracy {(outputs['classes'] == dataset.eval.labels).mean():.4f}"
    say(f"{told}, in {output}")
    for line in count_known(workdir(), dataset.eval.images, chosen=restored.chosen).told():
        say(line)
    return 0


def _predict_files(launch: Launch) -> int:
    from mnist_flax.show.terminal import draw_prediction, supports_drawing
    from mnist_flax.use.prediction import is_classification, predict_files

    restored = restore_asked(launch.overrides)
    colour, draw = "NO_COLOR" not in os.environ, supports_drawing(sys.stderr)
    draw = draw and is_classification(restored)
    prepared, status = preparation_of(restored), 0
    for made in predict_files(restored, launch.files, prepared):
        if isinstance(made, UserError):
            say(f"Error: {made}")
            status = made.exit_status
            continue
        if made.picture.done:
            say(f"{made.file}: {', '.join(made.picture.done)}")
        if made.picture.warning:
            say(f"{made.file}: Warning: {made.picture.warning}.")
        if draw:
            names, best = restored.class_names, int(made.outputs["classes"])
            title, shares = f"{made.file}: {names[best]}", made.outputs["probabilities"]
            say(draw_prediction(made.image, shares, names, title=title, colour=colour))
        print(json.dumps(made.row()), flush=True)
    return status
