"""The gradients of adapter and heads are the slopes of the three objectives, whose references are papers: finite differences.

In double precision, through frozen UNet and language model; what asks for fp32 on the way gets fp64.
"""

import pytest
import small_kolors as small
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

STEP, TOLERANCE = 1e-5, 1e-6
OBJECTIVES = small.System.objectives


class Double(TorchFunctionMode):
    """Every conversion to fp32 is one to fp64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = Tensor.double if function is Tensor.float else function
        args = [torch.float64 if each is torch.float32 else each for each in args]
        kwargs = {name: torch.float64 if each is torch.float32 else each for name, each in (kwargs or {}).items()}
        return function(*args, **kwargs)


@pytest.fixture(scope="module")
def model():
    """Every trained number is away from zero, so that no path is shut."""
    model, draw = small.network(trained=True).double(), torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return model


@pytest.fixture(scope="module")
def batch():
    return {name: value.double() if value.is_floating_point() else value for name, value in small.batch().items()}


def slope(loss, moves):
    """Of ``loss()`` as each of the parameters in ``moves`` goes along its direction."""
    found = []
    with torch.no_grad():
        start = [parameter.clone() for parameter in moves]
        for step in (STEP, -STEP):
            for (parameter, direction), value in zip(moves.items(), start, strict=True):
                parameter.copy_(value + step * direction)
            found.append(float(loss()))
        for parameter, value in zip(moves, start, strict=True):
            parameter.copy_(value)
    return (found[0] - found[1]) / (2 * STEP)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_slopes(model, batch, objective):
    """Each parameter's along a direction of its own; those without a gradient are moved together, and nothing follows."""

    def loss():
        with Double():
            found = model(batch, objective)[0]
        assert found.dtype == torch.float64
        return found

    draw = torch.Generator().manual_seed(3)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss(), trained.values(), allow_unused=True)
    directions = [torch.randn(p.shape, generator=draw, dtype=torch.float64) / p.numel() ** 0.5 for p in trained.values()]
    wrong, unused = {}, {}
    for (name, parameter), gradient, direction in zip(trained.items(), gradients, directions, strict=True):
        if gradient is None:
            unused[parameter] = direction
            continue
        found, expected = slope(loss, {parameter: direction}), float((gradient * direction).sum())
        if abs(found - expected) > TOLERANCE * float(gradient.norm()) + 1e-9:
            wrong[name] = (found, expected)
    assert wrong == {} and slope(loss, unused) == 0
