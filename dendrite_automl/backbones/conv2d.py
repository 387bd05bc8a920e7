"""conv2d: plain convolution blocks and linear layers, the baseline of published keyword-spotting studies."""

from __future__ import annotations

from dendrite_automl.backbones.layers import Halving, Image, Layer, Linear
from dendrite_automl.backbones.parts import check_at_least, check_odd, check_word, conv, nonlinear, scaled, to_logits
from dendrite_automl.errors import RequestError

RANKS = (2, 3)
_GROWTH = {
    "constant": (1, 1, 1),  # 8-8-8
    "double_once": (1, 2, 2),  # 4-8-8, 8-16-16
    "double": (1, 2, 4),  # 4-8-16
}


def list_layers(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    filters: float,
    blocks: int = 3,
    growth: str = "double_once",
    kernel: int = 3,
    hidden: int = 0,
    nonlinearity: str = "relu",
    norm: str = "none",
    head: str = "flatten",
) -> list[Layer]:
    """`blocks` times [convolution, 2x2 max pooling, nonlinearity], then one or two linear layers.

    Args:
        input_shape: [height, width] or [channels, height, width].
        filters: output channels of the first block; `growth` gives those of the following ones. Parts of a channel are
            rounded up in some blocks, down in others; see `scaled`.
        blocks: 1 to 3.
        growth: constant | double_once | double.
        kernel: side length of every kernel, odd.
        hidden: units of a hidden linear layer; 0 for none.
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none, after each convolution.
        head: flatten | pool (averaged over all positions), before the linear layers.

    Raises:
        RequestError: a knob is out of range, or the input is too small for this many poolings.

    Source:
        Channel patterns of the keyword-spotting study in arXiv 2605.15647 (conv 4-8-8, 8-16-16); kernel size and pooling are
        our reading of it.
    """
    check_word("conv2d", "growth", growth, tuple(_GROWTH))
    check_odd("conv2d", "kernel", kernel)
    check_at_least("conv2d", {"blocks": (blocks, 1), "filters": (filters, 1), "hidden": (hidden, 0)})
    channels, height, width = (1, *input_shape)[-3:]
    layers: list[Layer] = [Image()] if len(input_shape) == 2 else []
    if blocks > len(_GROWTH[growth]):
        raise RequestError(f"conv2d: blocks: expected at most {len(_GROWTH[growth])}, got {blocks}")
    for place, factor in enumerate(_GROWTH[growth][:blocks]):
        if min(height, width) < 2:
            raise RequestError(f"conv2d: blocks: expected at most the halvings that {input_shape} allows, got {blocks}")
        # Pooling comes before the nonlinearity, which then has less to compute.
        out = scaled(filters, factor, place=place, places=blocks)
        layers += conv(2, channels, out, kernel, norm=norm)
        layers += [Halving(), nonlinear("conv2d", nonlinearity)]
        channels, height, width = out, height // 2, width // 2
    if not hidden:
        return [*layers, *to_logits("conv2d", head, channels, (height, width), classes)]
    layers += to_logits("conv2d", head, channels, (height, width), hidden)
    return [*layers, nonlinear("conv2d", nonlinearity), Linear(hidden, classes)]
