"""Small wrong changes, each of which some test must notice. Not a test itself.

    python tests/mutants.py              all of them, in copies of this folder, two at a time
    python tests/mutants.py rotation     those that have the word in their name

A row counts when its tests pass as the code is, and an assertion of theirs fails once the old text
is replaced by the new one. An old text that is not there, or more than once, is an error: the row
is then to be written anew. A change that no test notices is printed, and the status is 1.
"""

import argparse
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "mnist_flax"


class Mutant(NamedTuple):
    """A small wrong change.

    Attributes:
      name: what is then wrong.
      file: in the package.
      old: text of it, there once.
      new: what takes its place.
      tests: arguments of pytest; a file and more.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


OPTIMIZERS = "tests/core/test_optimizers.py"
MODELS = "tests/models/test_models.py"
AUGMENT = "tests/data/test_augment.py"
STEPS = "tests/tasks/test_steps.py"
REPORT = "tests/report/test_report_figures.py"
SERVE = "tests/serve/test_serve.py"
SLOW_CLIENTS = "tests/serve/test_serve_slow_clients.py"
RATES_BY_PATH = "tests/core/test_rates_by_path.py"
UPDATE = "tests/core/test_update.py"
BAD_STEPS = "tests/core/test_bad_steps.py"
PATIENCE = "tests/core/test_patience.py"
MIX = "tests/data/test_mix.py"
STREAMS = "tests/data/test_streams.py"
DISTORT = "tests/data/test_distort.py"
WRITERS = "tests/show/test_own_writers.py"
WANDB = "tests/show/test_wandb.py"
DEVICES = "tests/distributed/test_devices.py -m distributed"
PROCESSES = "tests/faults/test_faults.py -m distributed -k"
SWEEP = "tests/cli/test_sweep.py -k"
INSTALLED = "tests/cli/test_installed.py -k"
SWEEP_POINTS = "tests/config/test_sweep_points.py"
SWEEP_REPORT = "tests/report/test_sweep_report.py"
HANDED_IN = "tests/data/test_handed_in.py"
HANDED_IN_RUNS = "tests/training/test_handed_in_runs.py"
EXTRA = "tests/data/test_extra_splits.py"
EXTRA_RUNS = "tests/training/test_extra_splits_runs.py"
ENSEMBLE = "tests/models/test_ensemble.py -k"
DISTILLATION = "tests/tasks/test_distillation.py -k"
TAKEN = "tests/training/test_taken.py -k"
KEPT = "tests/cli/test_kept_programs.py -k"
PICTURES = "tests/data/test_pictures.py -k"
MUTANTS = (
    # The command and its names.
    Mutant(
        "command: a folder of a recipe's name is in the way",
        "cli/recipe_files.py",
        "    if named == path.name and not path.suffix:\n",
        "    if named == path.name and not path.suffix and not path.exists():\n",
        f"{INSTALLED} by_its_name",
    ),
    Mutant(
        "command: an installed one is called by another name",
        "cli/program.py",
        'return [file] if file == _INSTALLED else ["python", file]',
        'return ["python", file]',
        f"{INSTALLED} names_itself",
    ),
    Mutant(
        "command: a report says another name",
        "cli/modes.py",
        "shlex.join(program.name(launch.argv[0]))",
        '"python launch.py"',
        f"{INSTALLED} names_itself",
    ),
    Mutant(
        "command: one that the shell does not find is named",
        "cli/program.py",
        "(words == [_INSTALLED] and _is_found(argv0))",
        "words == [_INSTALLED]",
        f"{INSTALLED} it_was_started",
    ),
    Mutant(
        "command: a sweep starts a file of the package",
        "cli/program.py",
        "*(_MODULE if _is_module(argv0) else [argv0])",
        "argv0",
        f"{INSTALLED} it_was_started",
    ),
    Mutant(
        "command: its version waits for JAX",
        "cli/program.py",
        "importlib.metadata.version(each)}",
        "__import__(each).__version__}",
        f"{INSTALLED} waits_for_no_jax",
    ),
    Mutant(
        "command: Ctrl-C gives a traceback while it imports",
        "cli/start.py",
        "        signal.signal(signal.SIGINT, signal.SIG_DFL)\n    from",
        "        pass\n    from",
        "tests/training/test_stopping.py -k ctrl_c",
    ),
    Mutant(
        "command: a recipe's variant is lost",
        "cli/recipe.py",
        '_execute(path, value.partition(":")[2])',
        '_execute(path, "")',
        "tests/cli/test_launch_errors.py -k variant",
    ),
    Mutant(
        "command: Ctrl-C gives a traceback while it takes itself down",
        "cli/start.py",
        "    status = main(sys.argv)\n    if pythons_own:\n",
        "    status = main(sys.argv)\n    if False:\n",
        "tests/training/test_stopping.py -k ctrl_c",
    ),
    Mutant(
        "command: Ctrl-C ends what was started to ignore it",
        "cli/start.py",
        "pythons_own = signal.getsignal(signal.SIGINT) == signal.default_int_handler",
        "pythons_own = True",
        "tests/training/test_stopping.py -k ctrl_c",
    ),
    Mutant(
        "command: a recipe that is not Python is taken",
        "cli/recipe_files.py",
        'if path.suffix != ".py":',
        'if path.suffix == ".json":',
        "tests/cli/test_recipe.py -k is_python",
    ),
    # Several devices and processes.
    Mutant(
        "each device has all of a batch",
        "data/placement.py",
        "sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS))\n",
        "sharding = NamedSharding(self.mesh, PartitionSpec())\n",
        f"{DEVICES} -k each_device",
    ),
    Mutant(
        "a signal stops the process that it came to alone",
        "data/placement.py",
        "return any(self.exchange(flag))",
        "return flag",
        f"{PROCESSES} SIGTERM",
    ),
    Mutant(
        "another config is not noticed",
        "training/processes.py",
        "    if other := diff(firsts, _as_json(mine)):",
        "    if other := diff(mine, mine):",
        f"{PROCESSES} another",
    ),
    Mutant(
        "a process that has failed waits for the others",
        "cli/processes.py",
        "    if watching.is_watched() and not _left:",
        "    if False:",
        f"{PROCESSES} full",
    ),
    Mutant(
        "what nobody has caught in one process leaves the others waiting",
        "cli/processes.py",
        "    sys.excepthook = _end_at_once\n",
        "",
        "tests/distributed/test_processes.py -m distributed -k nobody",
    ),
    Mutant(
        "a signal that the parent hands on counts as a second one",
        "cli/train.py",
        "deaf_seconds=1.0 if together or of_sweep else 0.0",
        "deaf_seconds=0.0",
        "tests/distributed/test_processes.py -m distributed -k parent_and_child",
    ),
    Mutant(
        "a process trains on when whoever watches it is gone",
        "cli/watching.py",
        "        while os.getppid() == parent:",
        "        while True:",
        f"{PROCESSES} watches",
    ),
    Mutant(
        "what a process has said is said otherwise by its parent",
        "cli/watching.py",
        "    if SAID_WHY in wrote:",
        "    if False:",
        "tests/cli/test_watching.py",
    ),
    # Optimizers, schedules, rates.
    Mutant(
        "weight decay: of biases, too",
        "core/optimizers.py",
        "jnp.ndim(leaf) > 1",
        "jnp.ndim(leaf) > 0",
        OPTIMIZERS,
    ),
    Mutant(
        "clipping after the optimizer",
        "core/optimizers.py",
        "optax.chain(optax.clip_by_global_norm(clip_by_global_norm), optimizer)",
        "optax.chain(optimizer, optax.clip_by_global_norm(clip_by_global_norm))",
        OPTIMIZERS,
    ),
    Mutant(
        "a schedule one step too long",
        "core/optimizers.py",
        "dict.fromkeys(_LENGTHS, total_steps)",
        "dict.fromkeys(_LENGTHS, total_steps + 1)",
        OPTIMIZERS,
    ),
    Mutant(
        "a momentum of 1 is let through",
        "core/optimizers.py",
        "0 <= value < 1)",
        "0 <= value <= 1)",
        "tests/config/test_wrong_values.py",
    ),
    Mutant(
        "a row's learning rate one step late",
        "core/rates.py",
        "max(int(leaves[place]) - 1, 0)",
        "int(leaves[place])",
        "tests/training/test_golden.py -k rate",
    ),
    Mutant(
        "the rate of a task's own one step late",
        "training/telling.py",
        "step = max(at.step - 1, 0)",
        "step = at.step",
        "tests/report/test_report_tasks.py -k own_is",
    ),
    Mutant(
        "the average weighs the newest step alone",
        "core/average.py",
        "average + share * (new - average)",
        "new + 0 * share * average",
        "tests/core/test_average.py -k weights",
    ),
    # Models.
    Mutant(
        "LeNet's epsilon",
        "models/lenet.py",
        "epsilon=1e-3",
        "epsilon=1e-5",
        "tests/models",
    ),
    Mutant(
        "LeNet's momentum",
        "models/lenet.py",
        "momentum=0.9",
        "momentum=0.99",
        "tests/models",
    ),
    Mutant("LeNet's width", "models/lenet.py", "dense(100,", "dense(120,", "tests/models"),
    Mutant(
        "LeNet without the ReLU on its logits",
        "models/lenet.py",
        "nn.relu(logits) if self.relu_logits",
        "logits if self.relu_logits",
        "tests/models",
    ),
    Mutant(
        "dropout at rest",
        "models/compact.py",
        "deterministic=not train",
        "deterministic=train",
        "tests/models",
    ),
    Mutant(
        "a view that is there twice",
        "models/compact.py",
        "((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))",
        "((1, 1), (0, 1), (2, 1), (1, 0), (1, 1))",
        "tests/models",
    ),
    Mutant(
        "a variance taken for a deviation",
        "models/vae.py",
        "jnp.exp(log_variances / 2)",
        "jnp.exp(log_variances)",
        "tests/models/test_vae.py",
    ),
    Mutant(
        "the DCGAN's spread",
        "models/dcgan.py",
        "_SPREAD = 0.02",
        "_SPREAD = 0.03",
        "tests/tasks/test_gan.py -k start",
    ),
    # Augmentation.
    Mutant(
        "rotation to one side",
        "data/distort.py",
        "rotate(images, jax.random.uniform(key, (len(images),), minval=-limit,",
        "rotate(images, jax.random.uniform(key, (len(images),), minval=0.0,",
        AUGMENT,
    ),
    Mutant(
        "rotation in radians",
        "data/distort.py",
        "jnp.deg2rad(jnp.float32(max_degrees))",
        "jnp.float32(max_degrees)",
        AUGMENT,
    ),
    Mutant(
        "scaling one way",
        "data/distort.py",
        "jnp.exp(jax.random.uniform(key, (len(images),), minval=-limit, maxval=limit))",
        "jnp.exp(jax.random.uniform(key, (len(images),), minval=0.0, maxval=limit))",
        AUGMENT,
    ),
    Mutant(
        "a shift that never reaches its largest",
        "data/distort.py",
        "0, 2 * max_pixels + 1)",
        "0, 2 * max_pixels)",
        AUGMENT,
    ),
    Mutant(
        "the extended set upside down",
        "data/augment.py",
        "jnp.flip(images, axis=2)",
        "jnp.flip(images, axis=1)",
        AUGMENT,
    ),
    Mutant(
        "up for down in the extended set",
        "data/augment.py",
        "((1, 0), (-1, 0), (0, 1), (0, -1))",
        "((-1, 0), (1, 0), (0, 1), (0, -1))",
        AUGMENT,
    ),
    Mutant(
        "all augmentations draw the same",
        "data/augment.py",
        "own = jax.random.fold_in(key, place)",
        "own = key",
        AUGMENT,
    ),
    Mutant(
        "pixels up to 0.996",
        "data/augment.py",
        "/ 255.0",
        "/ 256.0",
        AUGMENT,
    ),
    # Steps, sources, sums.
    Mutant(
        "a key without its step",
        "keys.py",
        "return jax.random.fold_in(key, step)",
        "return key",
        "tests/core/test_state.py",
    ),
    Mutant(
        "an image that fills up is counted",
        "data/sources.py",
        "mask = picks < len(labels)",
        "mask = picks <= len(labels)",
        STEPS,
    ),
    Mutant(
        "every epoch in the first one's order",
        "data/sources.py",
        'rng_key(config.seed, "shuffle", epoch)',
        'rng_key(config.seed, "shuffle", 0 * epoch)',
        "tests/data/test_sources.py",
    ),
    Mutant(
        "running statistics may be infinite",
        "core/chunk.py",
        "(state.variables, state.window, state.epoch)",
        "(state.params, state.window, state.epoch)",
        "tests/core/test_state.py",
    ),
    Mutant(
        "a mean over one too many",
        "core/sums.py",
        "values[name] / count",
        "values[name] / (count + 1)",
        "tests/core/test_sums.py",
    ),
    Mutant(
        "the update of a step later",
        "core/update.py",
        "step=state.step + 1",
        "step=state.step + 2",
        STEPS,
    ),
    Mutant(
        "running statistics that stay",
        "core/update.py",
        "{**variables, **changed, ",
        "{**changed, **variables, ",
        STEPS,
    ),
    # Workdir.
    Mutant(
        "the best is replaced on ties",
        "training/standing.py",
        "return value > best if",
        "return value >= best if",
        "tests/training/test_standing.py",
    ),
    Mutant(
        "a row that is not on the disk",
        "workdir/rows.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/workdir/test_workdir.py",
    ),
    Mutant(
        "a file that is not on the disk",
        "workdir/files.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/workdir/test_workdir.py",
    ),
    Mutant(
        "the rows of the saved step are cut",
        "workdir/rows.py",
        'if row["step"] <= step]',
        'if row["step"] < step]',
        "tests/training/test_resume.py",
    ),
    Mutant(
        "one save too many is kept",
        "workdir/checkpoints.py",
        "if saves is self._latest else 1) - 1 :]",
        "if saves is self._latest else 1) :]",
        "tests/workdir/test_checkpoint.py",
    ),
    Mutant(
        "a save is believed unread",
        "workdir/checkpoints.py",
        "saves.read(step, like, written=sha256)",
        "pass",
        "tests/workdir/test_read_back.py",
    ),
    Mutant(
        "a digest without types",
        "workdir/digests.py",
        'digest.update(f"{path} {form};".encode())',
        'digest.update(f"{path};".encode())',
        "tests/workdir",
    ),
    Mutant(
        "an image known once counts for none",
        "workdir/known_images.py",
        "np.isin(digests, known).sum()",
        "np.isin(known, digests).sum() // 2",
        "tests/workdir/test_known_images.py",
    ),
    # Report and pictures.
    Mutant(
        "the confusion matrix transposed",
        "report/plots.py",
        "axes.imshow(cells)",
        "axes.imshow(cells.transpose(1, 0, 2))",
        REPORT,
    ),
    Mutant(
        "TensorBoard's confusion matrix transposed",
        "show/drawings.py",
        "np.add.at(counts, (labels, classes), 1)",
        "np.add.at(counts, (classes, labels), 1)",
        "tests/show/test_drawings.py",
    ),
    Mutant(
        "reliability bars of confidence",
        "report/plots.py",
        "np.nan_to_num(measured.accuracy)",
        "np.nan_to_num(measured.confidence)",
        REPORT,
    ),
    Mutant(
        "saliency of the label",
        "report/mistakes.py",
        "split.images[chosen], predictions.classes[chosen]",
        "split.images[chosen], predictions.labels[chosen]",
        REPORT,
    ),
    Mutant(
        "swapped labels on mistake cards",
        "report/mistakes.py",
        "restored.class_names[predictions.labels[index]]",
        "restored.class_names[predictions.classes[index]]",
        REPORT,
    ),
    Mutant(
        "the least confident mistakes",
        "report/mistakes.py",
        "np.argsort(-confidence[wrong]",
        "np.argsort(confidence[wrong]",
        REPORT,
    ),
    Mutant(
        "saliency with its sign",
        "report/saliency.py",
        "jnp.abs(jax.grad(chosen_logits)(normalize(images))).max(-1)",
        "jax.grad(chosen_logits)(normalize(images)).max(-1)",
        REPORT,
    ),
    # Serve.
    Mutant(
        "every Host is allowed",
        "serve/app.py",
        ".lower() in self._hosts",
        '.lower() not in ("",)',
        SERVE,
    ),
    Mutant(
        "no bound on connections",
        "serve/connection.py",
        "> MOST_CONNECTIONS:",
        "> 10**9:",
        SLOW_CLIENTS,
    ),
    Mutant(
        "an idle connection stays",
        "serve/connection.py",
        "self._timer = self.loop.call_later(HEAD_SECONDS, self._look)",
        "self._timer = self.loop.call_later(3600, self._look)",
        SLOW_CLIENTS,
    ),
    Mutant(
        "a client that goes away is a fault of ours",
        "serve/app.py",
        "            except ClientDisconnect:\n",
        "            except ZeroDivisionError:\n",
        SLOW_CLIENTS,
    ),
    Mutant(
        "large pictures without a bound",
        "serve/app.py",
        "self._room.large_bytes > MOST_LARGE_BYTES",
        "self._room.large_bytes > 10**12",
        SLOW_CLIENTS,
    ),
    Mutant(
        "another site's page may post",
        "serve/app.py",
        "if origin is not None and origin !=",
        "if origin == '' and origin !=",
        SERVE,
    ),
    Mutant(
        "the page does not invert",
        "serve/page.html",
        'if (!model.center && model.preparation.ground !== "light") {',
        'if (!model.center && model.preparation.ground === "light") {',
        "tests/serve/test_serve_browser.py -m slow -k ground",
    ),
    # Tasks.
    Mutant(
        "a divergence with a wrong sign",
        "tasks/autoencoder.py",
        "- 1 - log_variances)",
        "- 1 + log_variances)",
        "tests/tasks/test_autoencoder.py",
    ),
    Mutant(
        "the generator learns from the discriminator before its update",
        "tasks/adversaries.py",
        '_apply(model, "discriminate", "discriminator", judge, stats, drawn)',
        '_apply(model, "discriminate", "discriminator", before["discriminator"], stats, drawn)',
        "tests/tasks/test_gan_fast.py -k hand",
    ),
    Mutant(
        "both networks on the same noise",
        "tasks/adversaries.py",
        "jax.random.fold_in(key, n)",
        "jax.random.fold_in(key, 0 * n)",
        "tests/tasks/test_gan_fast.py -k hand",
    ),
    Mutant(
        "the generator waits one step too long",
        "tasks/adversaries.py",
        "jnp.where(step < first_steps,",
        "jnp.where(step <= first_steps,",
        "tests/tasks/test_gan.py -k reaches",
    ),
    Mutant(
        "real labels are whole",
        "tasks/adversaries.py",
        '(("real", real_label), ("fake", 0.0))',
        '(("real", 1.0), ("fake", 0.0))',
        "tests/tasks/test_gan_fast.py -k hand",
    ),
    Mutant(
        "another loss is shown than that of the labels",
        "tasks/classification.py",
        "    sums = sums_of(logits, batch.labels)\n    if not",
        "    sums = sums_of(logits / 2, batch.labels)\n    if not",
        STEPS,
    ),
    Mutant(
        "half the distance between drawings and images",
        "use/judge.py",
        "- 2 * shared)",
        "- shared)",
        "tests/use/test_judge.py -k distance",
    ),
    Mutant(
        "shares of the least probable class",
        "use/judge.py",
        "probabilities.argmax(-1), minlength",
        "probabilities.argmin(-1), minlength",
        "tests/use/test_judge.py",
    ),
    # Data.
    Mutant(
        "class names of Fashion-MNIST swapped",
        "data/dataset.py",
        '"T-shirt/top", "Trouser"',
        '"Trouser", "T-shirt/top"',
        "tests/data/test_data_dataset.py tests/data/test_data_idx.py",
    ),
    Mutant(
        "calibration: a confidence on an edge counts in the bin above",
        "use/calibration.py",
        "[1:-1], right=True)",
        "[1:-1])",
        REPORT,
    ),
    Mutant(
        "calibration: every bin counts alike",
        "use/calibration.py",
        "np.nansum(counts / len(labels) * np.abs(",
        "np.nanmean(np.abs(",
        REPORT,
    ),
    Mutant(
        "a picture is centred by its box",
        "data/ink.py",
        "centre = (mass * np.arange(n)).sum() / mass.sum()",
        "centre = (n - 1) / 2",
        f"{PICTURES} left_alone",
    ),
    Mutant(
        "a picture's centre lies a pixel too far up and left",
        "data/ink.py",
        "round(14 - centre)",
        "round(13 - centre)",
        f"{PICTURES} left_alone",
    ),
    Mutant(
        "a photograph is taken as it lies, not as it was held",
        "data/decoding.py",
        "_opaque(ImageOps.exif_transpose(image), mode)",
        "_opaque(image, mode)",
        f"{PICTURES} exif",
    ),
    Mutant(
        "16-bit grey is cut at 255",
        "data/decoding.py",
        "(deep / np.float32(257)).round()",
        "deep.clip(0, 255)",
        f"{PICTURES} 16_bit",
    ),
    Mutant(
        "a percentage of a split is rounded down",
        "data/splits.py",
        "round(bound * size / 100.0) if percent",
        "int(bound * size / 100.0) if percent",
        "tests/data/test_data_dataset.py -k tfds",
    ),
    Mutant(
        "pictures on either ground are inverted",
        "data/preparation.py",
        '{"dark": 1, "light": -1}.get(ground)',
        '{"dark": 1, "light": 1}.get(ground)',
        "tests/data/test_preparation.py",
    ),
    # What a step can be asked for.
    Mutant(
        "a frozen parameter moves",
        "core/rates_by_path.py",
        "update * factor if factor else jnp.zeros_like(update)",
        "update * factor if factor else update",
        RATES_BY_PATH,
    ),
    Mutant(
        "a path matches by its beginning",
        "core/rates_by_path.py",
        "re.fullmatch(pattern, path)",
        "re.match(pattern, path)",
        RATES_BY_PATH,
    ),
    Mutant(
        "the last expression decides",
        "core/rates_by_path.py",
        "if path not in taken and re",
        "if re",
        RATES_BY_PATH,
    ),
    Mutant(
        "parts: the sum of their gradients",
        "core/update.py",
        "leaf / parts, total",
        "leaf, total",
        UPDATE,
    ),
    Mutant(
        "parts: one dropout for all",
        "core/update.py",
        "jax.random.fold_in(key, number)",
        "key",
        UPDATE,
    ),
    Mutant(
        "parts: running statistics of the last one alone",
        "core/update.py",
        'variables["params"], others, piece',
        "variables[\"params\"], {n: v for n, v in variables.items() if n != 'params'}, piece",
        UPDATE,
    ),
    Mutant(
        "norms: of the update before the optimizer",
        "core/update.py",
        "optax.tree.norm(updates))",
        "optax.tree.norm(grads))",
        UPDATE,
    ),
    Mutant(
        "a bad step: its optimizer state stays",
        "core/bad_steps.py",
        "kept(new_opt_state, opt_state),",
        "new_opt_state,",
        BAD_STEPS,
    ),
    Mutant(
        "a bad step: its examples are counted",
        "core/bad_steps.py",
        "kept(sums, jax.tree.map(jnp.zeros_like, sums))",
        "{**kept(sums, jax.tree.map(jnp.zeros_like, sums)), 'count': sums['count']}",
        BAD_STEPS,
    ),
    Mutant(
        "patience: the same again is better",
        "core/patience.py",
        "if value > kept.best if larger",
        "if value >= kept.best if larger",
        PATIENCE,
    ),
    Mutant(
        "patience: evaluations are never forgotten",
        "core/patience.py",
        "kept.replace(best=value, waited=np.int32(0), flat",
        "kept.replace(best=value, flat",
        PATIENCE,
    ),
    Mutant(
        "plateau: the row shows the schedule's rate",
        "core/patience.py",
        "return value * float(",
        "return value + 0 * float(",
        PATIENCE,
    ),
    Mutant(
        "mixup: the other label at the own share",
        "data/mix.py",
        "(1 - part)[:, None] * soft[partner]",
        "(1 - part)[:, None] * soft",
        MIX,
    ),
    Mutant(
        "mixup: the smaller part may be the own one",
        "data/mix.py",
        "jnp.maximum(part, 1 - part)",
        "part",
        MIX,
    ),
    Mutant(
        "cutmix: the share before the cut",
        "data/mix.py",
        "1 - inside.mean((1, 2)), partner",
        "part, partner",
        MIX,
    ),
    Mutant(
        "elastic distortion: one direction smoothed",
        "data/distort.py",
        '"hi,bnij,wj->bnhw", down, field, right',
        '"hi,bnij,wj->bnhw", down, field, jnp.eye(width)',
        DISTORT,
    ),
    Mutant(
        "random erasing: of every image",
        "data/distort.py",
        "mask = chosen[:, None, None] & hidden",
        "mask = hidden",
        DISTORT,
    ),
    Mutant(
        "balance: a rare class ends in the next one",
        "data/sources.py",
        "turn % jnp.asarray(counts[present])[which]",
        "turn",
        "tests/data/test_sources.py",
    ),
    Mutant(
        "class weights are not used",
        "tasks/classification.py",
        "        targets *= jnp.array(class_weights, targets.dtype)",
        "        pass",
        STEPS,
    ),
    Mutant(
        "what is learnt is shown as the average",
        "core/average.py",
        "task.evaluate(learnt(variables), batch)[0]",
        "sums",
        "tests/core/test_average.py",
    ),
    Mutant(
        "names there and here: by the beginning",
        "training/finetune.py",
        "pattern.fullmatch(other.name)",
        "pattern.match(other.name)",
        "tests/training/test_finetune.py",
    ),
    Mutant(
        "an nnx module trains at rest",
        "models/nnx_module.py",
        "module.train() if train else module.eval()",
        "module.eval()",
        "tests/models/test_nnx.py",
    ),
    # Speed on a CPU.
    Mutant(
        "small parameters change places",
        "core/packing.py",
        "vector[place : place + leaf.size]",
        "vector[: leaf.size]",
        "tests/core/test_packing.py",
    ),
    Mutant(
        "what is subtracted is added in its gradient",
        "cpu/broadcasting.py",
        "sums if eqn.primitive is primitives.add_p else -sums",
        "sums",
        "tests/cpu/test_broadcasting.py",
    ),
    Mutant(
        "biases: of the first image alone",
        "cpu/broadcasting.py",
        "lax.optimization_barrier(of_images).sum(0)",
        "lax.optimization_barrier(of_images)[0]",
        "tests/cpu/test_broadcasting.py",
    ),
    Mutant(
        "a kernel's gradient is padded on the wrong side",
        "cpu/convolution.py",
        "padding=[*padding, (0, 0)]",
        "padding=[*(edges[::-1] for edges in padding), (0, 0)]",
        "tests/cpu/test_bfloat16.py",
    ),
    Mutant(
        "a program for CUDA is rewritten as one for the CPU at hand",
        "cpu/__init__.py",
        '(rewritten if target() == "cpu" else fn)',
        "rewritten",
        "tests/training/test_platforms.py",
    ),
    Mutant(
        "bfloat16: asked for on any processor",
        "cpu/half_precision.py",
        "if not processor.has(_UNITS):",
        "if not processor:",
        "tests/cpu/test_bfloat16.py",
    ),
    Mutant(
        "compiler options are not recorded",
        "workdir/environment.py",
        '" ".join(half_precision.options(compute_dtype)) or "none"',
        '"none"',
        "tests/cpu/test_bfloat16.py",
    ),
    Mutant(
        "kept programs are believed",
        "cli/kept_programs.py",
        "if digests.get(path.name) == _digest(path):",
        "if path.name in digests:",
        "tests/cli/test_kept_programs.py",
    ),
    Mutant(
        "kept programs: two runs write the table at once",
        "cli/kept_programs.py",
        "with locked(folder, patience=_PATIENCE):",
        "with contextlib.nullcontext():",
        f"{KEPT} another_run_holds",
    ),
    Mutant(
        "kept programs: the newest go",
        "cli/kept_programs.py",
        "in sorted(kept, reverse=True)",
        "in sorted(kept)",
        f"{KEPT} oldest",
    ),
    Mutant(
        "kept programs: what was spoiled meanwhile is taken for what was written",
        "cli/kept_programs.py",
        "digests.get(path.name) or _digest(path)",
        "_digest(path)",
        f"{KEPT} spoiled_while",
    ),
    Mutant(
        "a broken state passes for a good one",
        "core/chunk.py",
        "return state, all_finite(state)",
        "return state, state.step >= 0",
        STEPS,
    ),
    Mutant(
        "an evaluation's outputs lie one over another",
        "core/chunk.py",
        "index * len(values), axis=0",
        "index * 0, axis=0",
        STEPS,
    ),
    # Streams.
    Mutant(
        "stream: the batch after the one that was asked for",
        "data/streams.py",
        "step - feed.first, keepdims",
        "step - feed.first + 1, keepdims",
        STREAMS,
    ),
    Mutant(
        "stream: a block beyond the end",
        "data/streams.py",
        "after < self._end",
        "after <= self._end",
        STREAMS,
    ),
    Mutant(
        "stream: the block before is not held",
        "data/streams.py",
        "_HELD = 3",
        "_HELD = 2",
        STREAMS,
    ),
    Mutant(
        "stream: every process reads the same rows",
        "data/streams.py",
        "rows = slice(process * self._part, (process + 1) * self._part)",
        "rows = slice(0, self._part)",
        STREAMS,
    ),
    Mutant(
        "stream: the extended set is not extended",
        "data/streams.py",
        "        if config.data.extended:\n",
        "        if False:\n",
        STREAMS,
    ),
    Mutant(
        "stream: what fills the last batch up counts",
        "data/streams.py",
        "jnp.arange(batch_size) < count",
        "jnp.arange(batch_size) <= count",
        STREAMS,
    ),
    Mutant(
        "stream: pictures beside the splits are not looked at",
        "data/survey.py",
        "np.flatnonzero(unseen)",
        "np.flatnonzero(unseen)[:0]",
        STREAMS,
    ),
    Mutant(
        "stream: the time of a file does not count",
        "data/folder.py",
        "told.st_size, told.st_mtime_ns",
        "told.st_size, 0",
        STREAMS,
    ),
    Mutant(
        "stream: the order of the records does not count",
        "data/survey.py",
        "digest.update(numbers.tobytes() + split",
        "digest.update(split",
        STREAMS,
    ),
    Mutant(
        "stream: what is turned passes for what is not",
        "data/records.py",
        'f"{self.records.key} {self.told}"',
        'f"{self.records.key}"',
        STREAMS,
    ),
    Mutant(
        "stream: the newest findings go",
        "data/kept_findings.py",
        "sorted(known, reverse=True)",
        "sorted(known)",
        STREAMS,
    ),
    # Sweeps.
    Mutant(
        "sweep: a run has all cores",
        "cli/sweep_processes.py",
        "    os.sched_setaffinity(0, {slot})\n",
        "",
        f"{SWEEP} core_from",
    ),
    Mutant(
        "sweep: a stop does not reach the runs",
        "cli/sweep_processes.py",
        "                    each.process.send_signal(asked)\n",
        "                    pass\n",
        f"{SWEEP} reaches",
    ),
    Mutant(
        "sweep: runs train on when it is killed",
        "cli/train.py",
        "        watching.end_with_parent(int(of_sweep))\n",
        "        pass\n",
        f"{SWEEP} begun",
    ),
    Mutant(
        "sweep: what is finished is trained once more",
        "cli/sweep.py",
        "if not _is_finished(run, folder, swept)]",
        "if run]",
        f"{SWEEP} begun",
    ),
    Mutant(
        "sweep: the fault of an earlier start",
        "cli/sweep_processes.py",
        "        file.seek(run.offset)\n",
        "",
        f"{SWEEP} why_a_command",
    ),
    Mutant(
        "sweep: a point that the command line decides",
        "cli/sweep_plan.py",
        "        if field in launch.overrides\n",
        "        if False\n",
        f"{SWEEP} definitions",
    ),
    Mutant(
        "sweep: even draws of a logarithmic range",
        "config/sweep.py",
        "    if logarithmic:\n",
        "    if False:\n",
        SWEEP_POINTS,
    ),
    Mutant(
        "sweep: another field changes the draws",
        "config/sweep.py",
        'random.Random(f"{seed} {name}") for name in values',
        'random.Random(f"{seed} {values}") for name in values',
        SWEEP_POINTS,
    ),
    Mutant(
        "sweep: the name depends on the order",
        "config/sweep.py",
        '",".join(sorted(',
        '",".join(list(',
        SWEEP_POINTS,
    ),
    Mutant(
        "sweep: a degree of freedom too many",
        "report/sweep_statistics.py",
        "(1 + CONFIDENCE) / 2, n - 1)",
        "(1 + CONFIDENCE) / 2, n)",
        SWEEP_REPORT,
    ),
    Mutant(
        "sweep: the deviation of the numbers themselves",
        "report/sweep_statistics.py",
        "ddof=1",
        "ddof=0",
        SWEEP_REPORT,
    ),
    Mutant(
        "sweep: a one-sided test",
        "report/sweep_statistics.py",
        "2 * float(stats.t.sf",
        "float(stats.t.sf",
        SWEEP_REPORT,
    ),
    Mutant(
        "sweep: a lucky point is the best",
        "report/sweep_table.py",
        "(-known.n, sign * known.mean)",
        "(-1, sign * known.mean)",
        SWEEP_REPORT,
    ),
    Mutant(
        "sweep: the first evaluation",
        "workdir/rows.py",
        "evaluations[-1] if",
        "evaluations[0] if",
        SWEEP_REPORT,
    ),
    # What is known before the first step, and a profile.
    Mutant(
        "check: the products with a convolution's padding are counted",
        "core/flops.py",
        "inside = (places >= 0) &",
        "inside = (places >= -99) &",
        "tests/core/test_flops.py",
    ),
    Mutant(
        "check: a loop's body is counted once",
        "core/flops.py",
        'times = eqn.params["length"] if eqn.primitive is primitives.scan_p else 1',
        "times = 1",
        "tests/core/test_layers.py -k parts",
    ),
    Mutant(
        "check: what cpu/ adds for speed is counted",
        "core/layers.py",
        'cpu.lowered_for("cuda"), nn.intercept',
        'cpu.lowered_for("cpu"), nn.intercept',
        "tests/core/test_layers.py -k by_hand",
    ),
    Mutant(
        "check: a layer has the parameters of those inside it",
        "core/layers.py",
        "for end in range(len(parts), -1, -1)",
        "for end in range(len(parts) + 1)",
        "tests/core/test_layers.py -k told_apart",
    ),
    Mutant(
        "check: the row at step 1 is not counted",
        "training/timetable.py",
        "rows=count(self.log_every) + first,",
        "rows=count(self.log_every),",
        "tests/cli/test_check.py -k due_comes",
    ),
    Mutant(
        "check: more steps are timed than the run has",
        "training/trial.py",
        "count = min(count, source.most_steps(at), total - at)",
        "count = min(count, source.most_steps(at))",
        "tests/cli/test_check.py -k runs_end",
    ),
    Mutant(
        "check: the saves are opened for writing",
        "training/outlook.py",
        "Checkpoints(directory, read_only=True, to_train=True)",
        "Checkpoints(directory, keep=2)",
        "tests/cli/test_check.py -k stays",
    ),
    Mutant(
        "check: a run that trains is not noticed",
        "workdir/lock.py",
        "        except BlockingIOError:\n            return True",
        "        except BlockingIOError:\n            return False",
        "tests/cli/test_check.py -k refused",
    ),
    Mutant(
        "check: a run that would be refused is said and not answered",
        "cli/check.py",
        "return refusal.exit_status if refusal else 0",
        "return 0",
        "tests/cli/test_check.py -k refused",
    ),
    Mutant(
        "profile: chunks run over the ends of the window",
        "training/timetable.py",
        "return min(self.total_steps, *ends, *(",
        "return min(self.total_steps, *(",
        "tests/training/test_profile.py -k chunks_end",
    ),
    Mutant(
        "profile: it is a row of the run",
        "training/run.py",
        "profiled(programs, plan.times.window, workdir, console.say)",
        "profiled(programs, plan.times.window, workdir, "
        'lambda told: at_hand.writer.event(0, "profile", told))',
        "tests/training/test_profile.py -k is_traced",
    ),
    Mutant(
        "profile: a window that is cut short is not ended",
        "training/profile.py",
        "    finally:\n        trace.end()",
        "    finally:\n        pass",
        "tests/training/test_profile.py -k go_on",
    ),
    Mutant(
        "profile: a loop's time is counted with what is inside it",
        "show/operations.py",
        "            yield open_ones[-1][1], start - end, 0\n",
        "",
        "tests/training/test_profile.py -k times_are",
    ),
    Mutant(
        "profile: other programs' operations are counted",
        "show/operations.py",
        'if stats.get("hlo_module") == program and "hlo_op" in stats:',
        'if "hlo_op" in stats:',
        "tests/training/test_profile.py -k times_are",
    ),
    Mutant(
        "profile: a window behind the run is taken",
        "training/opening.py",
        "        plan.times.require_window(at.step)\n",
        "",
        "tests/training/test_profile.py -k go_on",
    ),
    Mutant(
        "profile: the command to go on names the window again",
        "cli/hints.py",
        'arguments = _without("profile", launch.argv[1:])',
        "arguments = launch.argv[1:]",
        "tests/training/test_profile.py -k signal",
    ),
    Mutant(
        "a writer that failed is called again",
        "show/writers.py",
        "[other for other in self._called if other is not entry]",
        "self._called",
        f"{WRITERS} -k left_out",
    ),
    Mutant(
        "a writer changes the row that the next one gets",
        "show/writers.py",
        "copy.deepcopy(dict(row)), context)",
        "row, context)",
        f"{WRITERS} -k neither_bits",
    ),
    Mutant(
        "a writer's fault hides the error that ended the run",
        "show/writers.py",
        'row.get("event") not in ("diverged", "failed")',
        "True",
        f"{WRITERS} -k error_that",
    ),
    Mutant(
        "writers are told of an end twice",
        "show/writers.py",
        """        if event == "ended":
            self._called = []
""",
        "",
        f"{WRITERS} -k error_that",
    ),
    Mutant(
        "writers share a memory",
        "show/writers.py",
        "replace(context, memory={})",
        "context",
        f"{WRITERS} -k neither_bits",
    ),
    Mutant(
        "W&B is sent what a kill may take back",
        "show/wandb_view.py",
        'event in ("started", "saved", "ended")',
        "event",
        WANDB,
    ),
    Mutant(
        "W&B is sent what it has",
        "show/wandb_view.py",
        "run.step if run.resumed else 0",
        "0",
        WANDB,
    ),
    Mutant(
        "W&B has the rows of a run that may go another way",
        "show/wandb_view.py",
        ' and row.get("event") != "failed"',
        "",
        WANDB,
    ),
    Mutant(
        "two histories of W&B's lie side by side",
        "show/wandb_view.py",
        "        if not _is_synced(path):",
        "        if False:",
        WANDB,
    ),
    Mutant(
        "W&B is sent a history that it knows, under its id",
        "show/wandb_view.py",
        "if not name or (offline and (",
        "if not name or (False and (",
        WANDB,
    ),
    # Networks out of other runs.
    Mutant(
        "ensemble: the mean of logarithms",
        "models/ensemble.py",
        "return largest + jnp.log(jnp.exp(each - largest).mean(axis=0))",
        "return each.mean(axis=0)",
        f"{ENSEMBLE} by_hand",
    ),
    Mutant(
        "ensemble: small probabilities are lost",
        "models/ensemble.py",
        "return largest + jnp.log(jnp.exp(each - largest).mean(axis=0))",
        "return jnp.log(jnp.exp(each).mean(axis=0))",
        f"{ENSEMBLE} believes",
    ),
    Mutant(
        "ensemble: softmax in half precision",
        "models/ensemble.py",
        "nn.log_softmax(at_least_float32(one))",
        "nn.log_softmax(one)",
        f"{ENSEMBLE} half_precision",
    ),
    Mutant(
        "ensemble: every member computes in float32",
        "models/ensemble.py",
        "create_model(section, self.num_classes, compute_dtype=dtype)",
        "create_model(section, self.num_classes)",
        f"{ENSEMBLE} as_it_is_alone",
    ),
    Mutant(
        "ensemble: a single text passes for members",
        "tasks/ensemble.py",
        "if not isinstance(members, tuple | list) or not all(",
        "if not all(",
        f"{TAKEN} makes_no_sense",
    ),
    Mutant(
        "ensemble: fields of steps pass",
        "tasks/ensemble.py",
        "in_training=None, trains=False",
        "in_training=None, trains=True",
        f"{TAKEN} makes_no_sense",
    ),
    Mutant(
        "distillation: the temperature is not squared",
        "tasks/distillation.py",
        "return temperature**2 * (",
        "return temperature * (",
        f"{DISTILLATION} by_hand",
    ),
    Mutant(
        "distillation: the divergence the other way round",
        "tasks/distillation.py",
        "(jnp.exp(theirs) * (theirs - ours))",
        "(jnp.exp(ours) * (ours - theirs))",
        f"{DISTILLATION} by_hand",
    ),
    Mutant(
        "distillation: the mean over classes",
        "tasks/distillation.py",
        ".sum(axis=-1).mean()",
        ".mean()",
        f"{DISTILLATION} by_hand",
    ),
    Mutant(
        "distillation: a gradient reaches the teacher",
        "tasks/distillation.py",
        "jax.lax.stop_gradient(wanted)",
        "wanted",
        f"{DISTILLATION} by_hand",
    ),
    Mutant(
        "distillation: the two weights swapped",
        "tasks/distillation.py",
        "(1 - teacher_weight) * loss + teacher_weight * distance",
        "teacher_weight * loss + (1 - teacher_weight) * distance",
        f"{DISTILLATION} weighted_sum",
    ),
    Mutant(
        "taken: what is learnt in place of its average",
        "training/taken.py",
        "name: one.variables[collection]",
        "name: one.state.variables[collection]",
        f"{TAKEN} is_the_mean",
    ),
    Mutant(
        "taken: an ensemble on other data than its members'",
        "training/taken.py",
        'if taken.same_data and theirs["fingerprint"] != dataset.fingerprint:',
        "if False:",
        f"{TAKEN} cannot_be",
    ),
    Mutant(
        "taken: a member that is as it was is reported, and no other",
        "training/taken.py",
        '!= record["digest"]',
        '== record["digest"]',
        f"{TAKEN} has_changed",
    ),
    Mutant(
        "taken: members in bfloat16 are compiled for as others",
        "training/taken.py",
        '"bfloat16" if "bfloat16" in dtypes else "float32"',
        '"float32" if "float32" in dtypes else "bfloat16"',
        f"{TAKEN} made_of",
    ),
    Mutant(
        "taken: a member under two names counts twice",
        "training/members.py",
        "resolved = [path.resolve() for path in found]",
        "resolved = found",
        f"{TAKEN} cannot_be",
    ),
    Mutant(
        "taken: a run that goes on passes for finished",
        "training/members.py",
        'events[-1:] == ["finished"]',
        '"finished" in events',
        f"{TAKEN} newest_process",
    ),
    Mutant(
        "taken: members of other data pass",
        "training/members.py",
        'if found.trained_on["fingerprint"] == first.trained_on["fingerprint"]:',
        'if found.trained_on["name"] == first.trained_on["name"]:',
        f"{TAKEN} cannot_be",
    ),
    # Data that are handed in, and extra splits.
    Mutant(
        "handed in: they are called mnist",
        "data/handed_in.py",
        'return NAME if config_data.name == "mnist" else',
        'return NAME if config_data.name == "" else',
        HANDED_IN,
    ),
    Mutant(
        "handed in: the picture of another library is turned",
        "data/picture_files.py",
        "pixels(ImageOps.exif_transpose(image), deep=True)",
        "pixels(image, upright=True, deep=True)",
        HANDED_IN,
    ),
    Mutant(
        "handed in: labels beyond the class names pass",
        "data/handed_in.py",
        "    classes = len(names) or _MOST_CLASSES",
        "    classes = _MOST_CLASSES",
        HANDED_IN,
    ),
    Mutant(
        "handed in: the class names of the second data set are passed over",
        "data/handed_in.py",
        "    if train and evaluation and train != evaluation:",
        "    if False:",
        HANDED_IN,
    ),
    Mutant(
        "handed in: labels below 0 pass",
        "data/handed_in.py",
        "(labels < 0) | (labels >= classes)",
        "labels >= classes",
        f"{HANDED_IN} -k fault",
    ),
    Mutant(
        "handed in: more labels than images pass",
        "data/handed_in.py",
        "if len(pictures) != len(numbers):",
        "if len(pictures) > len(numbers):",
        f"{HANDED_IN} -k fault",
    ),
    Mutant(
        "handed in: a run looks for files instead",
        "training/own_data.py",
        'if recorded.get("dataset", {}).get("handed_in"):',
        "if False:",
        f"{HANDED_IN_RUNS} -k not_without_any",
    ),
    Mutant(
        "handed in: an evaluation looks for files instead",
        "use/run_data.py",
        'if trained_on.get("handed_in") and unnamed:',
        "if False:",
        f"{HANDED_IN_RUNS} -k a_command_says",
    ),
    Mutant(
        "handed in: the caller's config is changed",
        "training/gather.py",
        "        config = config.copy_and_resolve_references()\n",
        "",
        f"{HANDED_IN_RUNS} -k callers",
    ),
    Mutant(
        "extra split: those of an evaluation that a kill cut short stay",
        "workdir/rows.py",
        'if not (is_extra(row) and row["step"] == step)]',
        "]",
        f"{EXTRA_RUNS} -k kill",
    ),
    Mutant(
        "extra split: a stop in one leaves the evaluation half done",
        "training/loop.py",
        "        if extra is None:\n            return\n",
        "        if extra is None:\n            break\n",
        f"{EXTRA_RUNS} -k a_stop",
    ),
    Mutant(
        "extra split: one takes the program of another size",
        "training/compilation.py",
        "first.setdefault(images.shape, name)",
        "first.setdefault(images.shape[1:], name)",
        f"{EXTRA_RUNS} -k share",
    ),
    Mutant(
        "extra split: what is not finite is left out unsaid",
        "training/telling.py",
        "    if lost:\n",
        "    if False:\n",
        f"{EXTRA_RUNS} -k finite",
    ),
    Mutant(
        "extra split: other images under its name are not reported",
        "training/resume.py",
        'if before[n]["fingerprint"] != now[n]["fingerprint"]]',
        "if False]",
        f"{EXTRA_RUNS} -k added",
    ),
    Mutant(
        "extra split: a run does not take another one",
        "config/changes.py",
        "return field in _HARMLESS or field.startswith(OF_EXTRA_SPLITS)",
        "return field in _HARMLESS",
        f"{EXTRA} -k may_take",
    ),
    Mutant(
        "extra split: the classes of other data keep their own order",
        "data/extra_splits.py",
        "    alone = with_classes_of(",
        "    with_classes_of(",
        f"{EXTRA} -k another_order",
    ),
    Mutant(
        "extra split: of other data those that were trained on",
        "data/extra_splits.py",
        'asked.get("split") or "test"',
        'asked.get("split") or "train"',
        f"{EXTRA} -k of_other_data",
    ),
    Mutant(
        "extra split: the run's own come first",
        "data/extra_splits.py",
        "for n in config_data.extra_eval_splits if n in dataset.extra}",
        "for n in dataset.extra}",
        f"{EXTRA} -k order",
    ),
    Mutant(
        "extra split: streamed ones have no digests",
        "data/survey.py",
        "extra={name: replace(of, split=known(of.split)) for name, of in dataset.extra.items()},",
        "",
        f"{EXTRA} -k streamed",
    ),
)


def main() -> int:
    """Tries each change; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="part of the names of those to try")
    parser.add_argument("--workers", type=int, default=2)
    words = parser.parse_args()
    chosen = [m for m in MUTANTS if all(word in m.name for word in words.words)]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(words.workers) as pool:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(words.workers):
            copy = Path(folder) / str(number)
            ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache")
            shutil.copytree(ROOT, copy, ignore=ignored)
            copies.put(copy)
        told = list(pool.map(lambda mutant: _try(mutant, copies), chosen))
    missed = [line for line in told if line]
    seconds = time.perf_counter() - started
    print(f"{len(chosen) - len(missed)} of {len(chosen)} noticed, in {seconds:.0f} s.")
    return 1 if missed else 0


def _try(mutant: Mutant, copies: "queue.Queue[Path]") -> str:
    """Tries a change in a free copy; returns what is wrong with the row, '' for nothing."""
    copy = copies.get()
    path = copy / PACKAGE / mutant.file
    text = path.read_text(encoding="utf-8")
    try:
        told = _judge(mutant, copy, path, text)
    finally:
        path.write_text(text, encoding="utf-8")
        copies.put(copy)
    print(f"{'MISSED' if told else 'noticed'}  {mutant.name}{told and ': ' + told}", flush=True)
    return told


def _judge(mutant: Mutant, copy: Path, path: Path, text: str) -> str:
    if (count := text.count(mutant.old)) != 1:
        return f"the old text is there {count} times"
    before = _run(mutant.tests, copy)
    if before.returncode:
        return f"its tests do not pass as the code is: {_last(before)}"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    after = _run(mutant.tests, copy)
    if after.returncode == 0:
        return "no test notices it"
    if after.returncode != 1 or not re.search(r"^E +(assert|Assertion|Failed)", after.stdout, re.M):
        return f"no assertion fails, but: {_last(after)}"
    return ""


def _run(tests: str, copy: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--show-capture=no", "-m", "(not slow or promise) and not distributed"]
    command += tests.split()
    return subprocess.run(command, cwd=copy, capture_output=True, text=True)


def _last(done: "subprocess.CompletedProcess[str]") -> str:
    return (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1][:200]


if __name__ == "__main__":
    sys.exit(main())
