"""Trains, evaluates and uses a network: `python -m mnist_flax --help` says how."""

import sys

from mnist_flax.cli.start import start

if __name__ == "__main__":
    sys.exit(start())
