"""How many tokens describe an image; without torch, so that a study can be checked before anything is loaded."""

from math import isqrt

from ablation.errors import UserError

PATCH_SIZE = 14  # of DINOv2
CLASS_TOKENS = 1


def token_count(image_size: int, patch_size: int = PATCH_SIZE) -> int:
    """Tokens of a square image of ``image_size`` pixels a side: its whole patches, and the class token."""
    return (image_size // patch_size) ** 2 + CLASS_TOKENS


def check_tokens(image_size: int, condition_tokens: int, patch_size: int = PATCH_SIZE) -> None:
    """Raise UserError unless an image of ``image_size`` pixels a side makes ``condition_tokens`` tokens."""
    count = token_count(image_size, patch_size)
    if count == condition_tokens:
        return
    side = image_size // patch_size
    raise UserError(
        f"image_size = {image_size} makes {count} condition tokens ({side} x {side} patches of {patch_size} pixels and a class "
        f"token), but condition_tokens = {condition_tokens}{_published(side, condition_tokens)}\n"
        f"  set condition_tokens = {count}{_fitting_sizes(condition_tokens, patch_size)}"
    )


def _published(side: int, condition_tokens: int) -> str:
    """A word on the published count, which takes the class token twice."""
    if condition_tokens != side**2 + CLASS_TOKENS + 1:
        return ""
    return f"; the published formula, (image_size // patch)^2 + 2, is wrong: {side}^2 + {CLASS_TOKENS}"


def _fitting_sizes(condition_tokens: int, patch_size: int) -> str:
    patches = condition_tokens - CLASS_TOKENS
    if patches < 1 or isqrt(patches) ** 2 != patches:
        return f"; no image_size makes {condition_tokens}"
    least = isqrt(patches) * patch_size
    return f", or image_size = {least} ({least} to {least + patch_size - 1} make {condition_tokens})"
