"""What a network draws out of noise, as a file."""

import math
from pathlib import Path

from mnist_flax.core.sampling import sample
from mnist_flax.data.encoding import png
from mnist_flax.show.drawings import grid_image
from mnist_flax.use.output_files import write_npz, written
from mnist_flax.use.restore import Restored


def write_samples(restored: Restored, count: int, output: Path) -> None:
    """Draws pictures and writes them: a grid as .png, or 'samples' uint8 [count, H, W, C] as .npz.

    Args:
      restored: a network whose task draws.
      count: how many; the first of them are those that the run itself has kept.
      output: ends in .png or .npz.

    Raises:
      UserError: the file cannot be written.
    """
    config = restored.config
    drawn = sample(restored.task, restored.state.variables, config.seed, count, config.batch_size)
    if output.suffix.lower() == ".npz":
        write_npz(output, {"samples": drawn})
        return
    with written(output) as file:
        file.write(png(grid_image(drawn, math.ceil(math.sqrt(count)))))
