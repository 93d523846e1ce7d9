"""Which file --config names: one of the package's recipes by its name, or a path."""

from pathlib import Path

import mnist_flax
from mnist_flax.config.registry import nearest
from mnist_flax.errors import UsageError


def recipes_folder() -> Path:
    """Returns the folder of the package's recipes.

    It is configs/ of a checkout, which pyproject.toml has installed as mnist_flax/recipes/.
    """
    package = Path(mnist_flax.__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Returns the names of the package's recipes."""
    return sorted(path.stem for path in recipes_folder().glob("*.py"))


def recipe_file(value: str) -> Path:
    """Returns the file that --config names.

    What has neither a folder nor an ending is a name, whatever lies in the working directory.

    Args:
      value: of --config: 'speedrun', or a path; either with a variant, 'speedrun:bfloat16'.

    Raises:
      UsageError: there is no such recipe or file, or it is not Python.
    """
    named = value.partition(":")[0]
    path, names = Path(named), recipe_names()
    if named == path.name and not path.suffix:
        if named in names:
            return recipes_folder() / f"{named}.py"
        own = f"{named}.py"
        near = f" Did you mean {own!r}?" if Path(own).is_file() else nearest(named, names)
        raise UsageError(
            f"--config={value}: there is no recipe {named!r}.{near} There are {', '.join(names)}; "
            "of your own, name the file: FILE.py."
        )
    if not path.is_file():
        raise UsageError(f"--config={value}: there is no file {path}.{nearest(path.stem, names)}")
    if path.suffix != ".py":
        of_run = " A run goes on with the recipe that it was made with." * (path.suffix == ".json")
        raise UsageError(
            f"--config={value}: must be a Python file (.py) that has get_config().{of_run}"
        )
    return path
