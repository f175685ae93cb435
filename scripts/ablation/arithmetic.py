"""How this machine rounds: processors of one name may sum in another order, or a library may take other kernels."""

import hashlib

import numpy as np
import torch
from torch.nn import functional


def arithmetic() -> str:
    """A hash of small sums, products and functions as PyTorch and NumPy compute them on this processor, in milliseconds.

    Two machines with the same packages and threads but other hashes do not give the same bits; the same hash proves nothing.
    """
    numbers = np.arange(96 * 192, dtype=np.int64) * 2654435761 % 65537 / 65537 - 0.5
    rows = torch.tensor(numbers, dtype=torch.float32).view(96, 192)
    image, kernels = rows.view(1, 8, 48, 48), rows.flatten()[:576].view(8, 8, 3, 3)
    with torch.no_grad():
        by_torch = [
            rows @ rows.T,
            functional.conv2d(image, kernels),
            functional.layer_norm(rows, (192,)),
            functional.gelu(rows),
            rows.softmax(1),
            functional.interpolate(image, scale_factor=1.7, mode="bilinear"),
        ]
    square = numbers.reshape(96, 192)[:, :96]
    by_numpy = [square @ square.T, np.float32(square) @ np.float32(square).T, np.linalg.svd(square)[0], np.exp(numbers)]
    together = b"".join(np.ascontiguousarray(found).tobytes() for found in [*(one.numpy() for one in by_torch), *by_numpy])
    return hashlib.sha256(together).hexdigest()[:16]
