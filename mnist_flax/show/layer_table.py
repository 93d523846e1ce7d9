"""The layers of a network with what they compute and hold in a step, as a table of plain text."""

from collections.abc import Sequence

from mnist_flax.core.layers import Layer
from mnist_flax.show.plain_table import aligned

_HEAD = ("layer", "kind", "gives", "calls", "parameters", "in bytes", "gives, in bytes", "FLOPs")


def layer_table(layers: Sequence[Layer]) -> str:
    """Returns a line for each layer, and one of sums."""
    rows = [_HEAD, *(_row(layer) for layer in layers)]
    rows.append(
        (
            *("together", "", "", ""),
            f"{sum(layer.parameters for layer in layers):,}",
            format_bytes(sum(layer.parameter_bytes for layer in layers)),
            format_bytes(sum(layer.output_bytes for layer in layers)),
            format_flops(sum(layer.flops for layer in layers)),
        )
    )
    return "\n".join(aligned(rows, words=3))


def _row(layer: Layer) -> tuple[str, ...]:
    return (
        layer.name or "itself",
        layer.kind,
        ", ".join("×".join(map(str, shape)) for shape in layer.outputs) or "–",
        str(layer.calls) if layer.calls else "–",
        f"{layer.parameters:,}",
        format_bytes(layer.parameter_bytes),
        format_bytes(layer.output_bytes) if layer.outputs else "–",
        format_flops(layer.flops),
    )


def format_bytes(count: int) -> str:
    """Returns '38.7 MiB' of a number of bytes."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), 0
    while value >= 1024 and unit < 4:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def format_flops(count: float) -> str:
    """Returns '7.20 G' of a number of operations."""
    value, unit = float(count), 0
    while value >= 1000 and unit < 4:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {('', 'k', 'M', 'G', 'T')[unit]}".rstrip()
