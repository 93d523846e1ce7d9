"""The small run of tiny.py with the nnx network of test_nnx.py. Not a test itself."""

import sys
from pathlib import Path

from ml_collections import ConfigDict
from tiny import get_config as tiny

sys.path.append(str(Path(__file__).parent))


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = tiny()
    config.model = ConfigDict({"name": "test_nnx:Net"})
    return config
