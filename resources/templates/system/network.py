"""The network of ``newsystem``: residual blocks on a whole wave."""

from torch import Tensor, nn


class Block(nn.Module):
    """Two layers beside a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, W] to the same shape."""
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Denoiser(nn.Module):
    """A noisy wave to a clean one."""

    def __init__(self, length: int, width: int, depth: int):
        super().__init__()
        self.read, self.write = nn.Linear(length, width), nn.Linear(width, length)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, noisy: Tensor) -> Tensor:
        """``noisy`` [B, L] to the same shape."""
        x = self.read(noisy)
        for block in self.blocks:
            x = block(x)
        return self.write(x)
