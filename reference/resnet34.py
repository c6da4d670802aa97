"""ResNet-34: a stem, sixteen residual blocks in four stages, an average and a linear layer. Page: spec/resnet34.md"""

from typing import Any

import numpy as np
from nnspec.reference.arguments import Array
from nnspec.reference.basic_block import ResidualBlock
from nnspec.reference.batch_norm import BatchNorm2d
from nnspec.reference.conv2d import Conv2d
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp
from nnspec.reference.linear import Linear
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp
from nnspec.reference.module import Module, Pullback
from nnspec.reference.relu import relu, relu_vjp
from nnspec.reference.sequential import Sequential
from numpy.typing import DTypeLike

POOL: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}


class ResNet34(Module):
    """ResNet-34, which gives images one score for each class.

    The stem has `width` output channels: 64 in ResNet-34, fewer in a small version for tests.

    By construction: resnet34.refuses.channels, resnet34.refuses.rank, resnet34.output.dtype, resnet34.parameters.count,
    resnet34.state.complete, resnet34.state.shapes, resnet34.mode.train, resnet34.mode.eval, resnet34.defaults.sizes,
    resnet34.in-channels.respected, resnet34.stages.channels, resnet34.stages.stride, resnet34.num-classes.respected,
    resnet34.init.range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: int = 64,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()
        made: dict[str, Any] = {"dtype": dtype, "rng": rng}

        def stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> Sequential:
            first = ResidualBlock(in_channels, out_channels, stride, **made)
            return Sequential(first, *(ResidualBlock(out_channels, out_channels, **made) for _ in range(blocks - 1)))

        # [resnet34.stem.value]
        self.conv1 = Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False, **made)
        self.bn1 = BatchNorm2d(width, **made)
        # [resnet34.stages.lengths]
        self.layer1 = stage(width, width, blocks=3, stride=1)
        self.layer2 = stage(width, 2 * width, blocks=4, stride=2)
        self.layer3 = stage(2 * width, 4 * width, blocks=6, stride=2)
        self.layer4 = stage(4 * width, 8 * width, blocks=3, stride=2)
        self.fc = Linear(8 * width, num_classes, **made)
        for kernels in self.parameters():
            if kernels.data.ndim == 4:  # [resnet34.start.convolutions]
                o, _, kh, kw = kernels.data.shape
                kernels.data[...] = rng.normal(0, np.sqrt(2 / (o * kh * kw)), kernels.data.shape)

    def forward(self, x: Array) -> Array:
        """Return the scores (N, num_classes) of images x (N, in_channels, H, W).

        By construction: resnet34.output.size, resnet34.output.fresh, resnet34.batch.independent,
        resnet34.batch.empty, resnet34.input.unchanged, resnet34.input.layout, resnet34.memory.in-bounds,
        resnet34.memory.all-written, resnet34.memory.alignment, resnet34.call.stateless, resnet34.stem.pool,
        resnet34.blocks.value, resnet34.scores.linear, resnet34.domain.outside.
        """
        y = relu(self.bn1(self.conv1(x)))
        y = max_pool2d(y, **POOL)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            y = stage(y)
        y = global_avg_pool2d(y)  # (N, 8·width) for any H and W: [resnet34.pool.global]
        return self.fc(y)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which runs the pullbacks of the parts, the last one first.

        By construction: resnet34.gradient.parameters, resnet34.gradient.value.
        """
        stem, through_conv1 = self.conv1.vjp(x)
        stem, through_bn1 = self.bn1.vjp(stem)
        rectified = relu(stem)
        y = max_pool2d(rectified, **POOL)
        through_stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            y, through = stage.vjp(y)
            through_stages.append(through)
        last = y
        scores, through_fc = self.fc.vjp(global_avg_pool2d(last))

        def pull(cotangent: Array) -> Array:
            cotangent = global_avg_pool2d_vjp(through_fc(cotangent), last)
            for through in reversed(through_stages):
                cotangent = through(cotangent)
            cotangent = relu_vjp(max_pool2d_vjp(cotangent, rectified, **POOL), stem)
            return through_conv1(through_bn1(cotangent))

        return scores, pull
