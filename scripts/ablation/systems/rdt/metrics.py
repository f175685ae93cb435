"""How far predicted actions are from recorded ones, as the release measures it (train/sample.py)."""

from torch import Tensor

NORM_FLOOR = 1e-3


def sample_errors(predicted: Tensor, actions: Tensor, mask: Tensor, norm: Tensor) -> dict[str, Tensor]:
    """Errors of each sample [B], over the entries that the robot has: ``sample_mse`` and ``sample_l2err``.

    ``predicted`` and ``actions`` [B, H, A], ``mask`` [B, 1, A], ``norm`` [B, A]: the root mean square of each entry over all
    states of the sample's episode. What the release calls an L2 error is the absolute error, each entry in units of its norm.
    """
    error = (predicted - actions).abs()
    relative = error / (norm[:, None] + NORM_FLOOR)
    return {"sample_mse": _over_entries(error.square(), mask), "sample_l2err": _over_entries(relative, mask)}


def _over_entries(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` [B, H, A] where ``mask`` [B, 1, A] is 1 -> [B]."""
    mask = mask.expand_as(values)
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
