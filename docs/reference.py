"""Writes docs/reference/: every field, name, flag, file and row, out of the code.

    python docs/reference.py

Run it after a change of what it names; tests/test_reference.py fails until then.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from reference_config import config_page  # noqa: E402  next to this file
from reference_files import files_page  # noqa: E402

COMMAND = "python docs/reference.py"
PAGES = {"config.md": config_page, "files.md": files_page}


def main() -> None:
    """Writes both pages."""
    for name, page in PAGES.items():
        path = FOLDER / "reference" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(), encoding="utf-8")
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
