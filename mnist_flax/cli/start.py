"""How the command starts: launch.py, `mnist-flax` and `python -m mnist_flax` call this.

Nothing is imported here that start() must come before.
"""

import gc
import signal
import sys


def start() -> int:
    """Does what the command line says; returns the exit status, with which to end at once."""
    # It would look through all that is being imported, and traced, once in 700 new objects: 0.2 s.
    gc.set_threshold(100_000)
    # Python answers Ctrl-C with a traceback while it imports, and forgets it while it takes itself
    # down. There the system's own answer, which ends the process at once, is better; between the
    # two main() has answers of its own.
    pythons_own = signal.getsignal(signal.SIGINT) == signal.default_int_handler
    if pythons_own:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mnist_flax.cli.main import main

    if pythons_own:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = main(sys.argv)
    if pythons_own:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.freeze()  # Python would look through all that JAX and Orbax hold once more: 0.4 s
    return status
