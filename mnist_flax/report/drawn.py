"""What a run has drawn as it went: each series' last picture, and the film of all of them."""

from pathlib import Path

import numpy as np

from mnist_flax.data.encoding import film
from mnist_flax.report.page import Picture
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.kept_pictures import PICTURES, kept_pictures

_FRAMES = 60  # at most, in a film
_TOLD = {  # of the series that the package's own observers keep
    "samples": "Drawn out of noise, at every evaluation out of the same",
    "reconstructions": "The first images to evaluate, and below each what is drawn of it",
    "walk": "A walk between the codes (latents) of the first two of them",
}


def drawn_pictures(workdir: Path, restored: Restored) -> list[tuple[str, Picture]]:
    """Returns a title and a picture of each series in the workdir's pictures/.

    Args:
      workdir: of the run.
      restored: its network, at a step: what was drawn later is left out.
    """
    made, step = [], int(restored.state.step)
    for folder in sorted((workdir / PICTURES).glob("*/")):
        kept = {at: path for at, path in kept_pictures(workdir, folder.name).items() if at <= step}
        if not kept:
            continue
        last, frames = max(kept), list(kept.values())
        what = _TOLD.get(folder.name, folder.name.replace("_", " "))
        title = f"{what}: step {last:,}."
        moving = None
        if len(frames) > 1:
            title = (
                f"{what}. A film, a picture for each of {len(frames)} evaluations, from step "
                f"{min(kept):,} to {last:,}; a device that is set to less motion shows the last."
            )
            places = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames)))
            moving = film([frames[round(place)] for place in places.tolist()])
        still = kept[last].read_bytes()
        picture = Picture(f"drawn-{folder.name}", still, f"{what}, at step {last:,}", film=moving)
        made.append((title, picture))
    return made
