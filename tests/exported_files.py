"""What is exported, as a stranger runs it. Not a test itself."""

import re

# Before code that must not import this package, nor what its models are made with.
BLOCKER = """\
import sys
class Blocker:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("mnist_flax", "flax"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker)
"""


def card_examples(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)
