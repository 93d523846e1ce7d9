"""Trains, evaluates and uses a network: `python launch.py --help` says how."""

import gc
import signal
import sys

# It would look through all that is being imported, and traced, once in 700 new objects: 0.2 s.
gc.set_threshold(100_000)
# Python answers Ctrl-C with a traceback while it imports, and forgets it while it takes itself
# down. There the system's own answer, which ends the process at once, is better; between the two
# main() has answers of its own.
PYTHONS_OWN = signal.getsignal(signal.SIGINT) == signal.default_int_handler
if __name__ == "__main__" and PYTHONS_OWN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from mnist_flax.cli.main import main  # noqa: E402

if __name__ == "__main__":
    if PYTHONS_OWN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = main(sys.argv)
    if PYTHONS_OWN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.freeze()  # Python would look through all that JAX and Orbax hold once more: 0.4 s
    sys.exit(status)
