"""Trains, evaluates and uses a network.

    python launch.py --config=tutorial                                   train, or go on training
    python launch.py --config=RECIPE --workdir=NEW --init_from=OLD       fine-tune another run
    python launch.py --config=RECIPE --mode=sweep --seeds=0,1,2          a run a seed, and a table
    python launch.py --config=tutorial --mode=check                      what would it train?
    python launch.py --config=tutorial --mode=eval                       loss and accuracy, as JSON
    python launch.py --config=tutorial --mode=predict 7.png              what is on this picture?
    python launch.py --config=tutorial --mode=predict --split=test --output=test.npz
    python launch.py --config=tutorial --mode=serve                      a page to draw digits on
    python launch.py --config=tutorial --mode=report                     curves, mistakes, … in HTML
    python launch.py --config=tutorial --mode=export                     a file to use it elsewhere
    python launch.py --version                                           which version this is

Any field of the config is a flag: --config.optimizer.learning_rate=0.01, --config.num_epochs=3,
--config.data.data_dir=FOLDER. All fields, with what they mean: FIELDS.
"""

import io
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_flax.cli import program
from mnist_flax.cli.flags import FLAGS, describe_flags, parse
from mnist_flax.cli.hints import say
from mnist_flax.cli.kept_programs import hide_false_alarms
from mnist_flax.cli.modes import MODES
from mnist_flax.cli.processes import leave_failed
from mnist_flax.cli.recipe_files import recipe_names, recipes_folder
from mnist_flax.errors import UserError, out_of_memory

_UNREAD = 128 + 13  # as a shell has it of what SIGPIPE ends


def main(argv: Sequence[str]) -> int:
    """Parses flags, does what --mode says, returns the exit status."""
    return leave_failed(_run(argv))


def _run(argv: Sequence[str]) -> int:
    sys.path.append(str(Path.cwd()))  # where 'package.module:attribute' of a config may lie
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path comes out in the bytes that it has; what a console's alphabet lacks, as an escape.
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
    hide_false_alarms()  # before a recipe imports JAX
    try:
        status = _done(argv)
        sys.stdout.flush()
        return status
    except UserError as error:
        say(f"Error: {error}")
        return error.exit_status
    except BrokenPipeError:  # nobody reads on, as behind `| head -3`
        # Python flushes what is left once more as it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    except OSError as error:  # a full disk: nothing that a traceback explains
        say(f"Error: {error}")
        return 1
    except Exception as error:  # raised again, but for what a machine can cause
        if not out_of_memory(error):
            raise
        why = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        say(f"Error: out of memory ({why}). Lower --config.batch_size, or take a smaller network.")
        return 1
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130


def _done(argv: Sequence[str]) -> int:
    """Does what is asked for; returns the exit status."""
    if {"--help", "-help", "-h", "--helpfull"} & set(argv):
        print(_help(argv[0]))
        return 0
    if {"--version", "-version"} & set(argv):
        print(program.version())
        return 0
    launch = parse(argv)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax reports each of its steps
    return MODES[FLAGS.mode](launch)


def _help(argv0: str) -> str:
    """Returns what --help says, with this program under the name that it was called by."""
    text = (__doc__ or "").replace("python launch.py", shlex.join(program.typed(argv0)))
    recipes = (
        f"Recipes: {', '.join(recipe_names())};\npages to read and to copy, in {recipes_folder()}."
    )
    text = text.replace("FIELDS", str(Path(__file__).parents[1] / "config/fields.py"))
    return f"{text}\n{recipes}\n\n{describe_flags()}"
