"""Prepares a downloaded dataset as a TFDS directory, for those who want one.

python -m mnist_flax.data mnist FOLDER
"""

import sys

from mnist_flax.config.paths import expanded
from mnist_flax.data import tfds_source
from mnist_flax.data.dataset import CLASS_NAMES
from mnist_flax.errors import UserError


def main(arguments: list[str]) -> int:
    """Prepares it; returns the exit status."""
    if len(arguments) != 2 or arguments[0] not in CLASS_NAMES:
        print(f"{__doc__}\nKnown: {', '.join(CLASS_NAMES)}.", file=sys.stderr)
        return 2
    name, folder = arguments
    try:
        print(tfds_source.prepare(name, expanded(folder, "FOLDER"), print).source)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
