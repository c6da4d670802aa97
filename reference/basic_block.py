"""The residual block of ResNet-18 and ResNet-34: two convolutions and a shortcut. Page: spec/basic_block.md"""

from typing import Any

import numpy as np
from nnspec.reference.arguments import Array
from nnspec.reference.batch_norm import BatchNorm2d
from nnspec.reference.conv2d import Conv2d
from nnspec.reference.module import Module, Pullback
from nnspec.reference.relu import relu, relu_vjp
from nnspec.reference.sequential import Sequential
from numpy.typing import DTypeLike


class ResidualBlock(Module):
    """relu(branch(x) + shortcut(x)), where the shortcut is x itself if the branch keeps its shape.

    By construction: basic_block.refuses.channels, basic_block.refuses.stride, basic_block.refuses.rank,
    basic_block.parameters.count, basic_block.state.complete, basic_block.state.own, basic_block.mode.train,
    basic_block.mode.eval,
    basic_block.stride.once, basic_block.branch.norms, basic_block.init.range, basic_block.projection.channels,
    basic_block.projection.stride, basic_block.projection.norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "rng": rng or np.random.default_rng()}
        # Only the first convolution has the stride: [basic_block.stride.first]
        # The convolutions have no bias, because the norms after them have one.
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False, **made)
        # Each norm has its own statistics
        self.bn1 = BatchNorm2d(out_channels, **made)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False, **made)
        self.bn2 = BatchNorm2d(out_channels, **made)
        if stride == 1 and in_channels == out_channels:
            self.downsample = None  # [basic_block.shortcut.identity]
        else:
            self.downsample = Sequential(
                Conv2d(in_channels, out_channels, 1, stride, bias=False, **made),
                BatchNorm2d(out_channels, **made),
            )

    def forward(self, x: Array) -> Array:
        """Return images (N, out_channels, ceil(H / stride), ceil(W / stride)) of images x (N, in_channels, H, W).

        By construction: basic_block.shortcut.negative, basic_block.output.dtype, basic_block.output.fresh,
        basic_block.batch.independent, basic_block.batch.empty, basic_block.input.layout,
        basic_block.memory.in-bounds, basic_block.memory.all-written, basic_block.memory.alignment,
        basic_block.call.stateless, basic_block.call.neighbours, basic_block.branch.value,
        basic_block.domain.outside.
        """
        y = relu(self.bn1(self.conv1(x)))  # [basic_block.relu.inner]
        y = self.bn2(self.conv2(y))  # no ReLU here: [basic_block.relu.none-before-add]
        # Add to y, a new array, and not to x: [basic_block.input.unchanged]
        y += x if self.downsample is None else self.downsample(x)
        return relu(y)  # [basic_block.relu.after-add]

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which adds the gradients of branch and shortcut.

        By construction: basic_block.gradient.frozen,
        basic_block.gradient.train, basic_block.gradient.eval, basic_block.gradient.stride,
        basic_block.gradient.batch, basic_block.gradient.empty, basic_block.gradient.parameters,
        basic_block.gradient.like-operand, basic_block.gradient.buffers, basic_block.gradient.statistics,
        basic_block.gradient.unchanged, basic_block.gradient.layout, basic_block.gradient.shortcut,
        basic_block.gradient.projection, basic_block.gradient.x.
        """
        first, through_conv1 = self.conv1.vjp(x)
        first, through_bn1 = self.bn1.vjp(first)
        second, through_conv2 = self.conv2.vjp(relu(first))
        second, through_bn2 = self.bn2.vjp(second)
        shortcut, through_shortcut = (x, None) if self.downsample is None else self.downsample.vjp(x)
        total = second + shortcut

        def pull(cotangent: Array) -> Array:
            cotangent = relu_vjp(cotangent, total)  # [basic_block.gradient.last-relu]
            of_first = relu_vjp(through_conv2(through_bn2(cotangent)), first)  # [basic_block.gradient.inner-relu]
            of_shortcut = cotangent if through_shortcut is None else through_shortcut(cotangent)
            return through_conv1(through_bn1(of_first)) + of_shortcut

        return relu(total), pull


BasicBlock = ResidualBlock
