"""Prints constraints: every direct dependency at the lowest version that pyproject.toml allows.

python .ci/lowest.py > lowest.txt && pip install -e '.[test]' -c lowest.txt
"""

import re
import tomllib
from pathlib import Path

text = Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
project = tomllib.loads(text)["project"]
wanted = project["dependencies"] + [
    line for lines in project["optional-dependencies"].values() for line in lines
]
bounds = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in wanted]
print("\n".join(sorted({f"{found[1]}=={found[2]}" for found in bounds if found})))
