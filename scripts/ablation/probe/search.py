"""The largest batch that fits, by trial: where to try next, whoever tries."""

from collections.abc import Generator


def search(guess: int, limit: int) -> Generator[int, bool, int]:
    """Yields a batch to try and is sent whether it fits; returns the largest that does, 0 where not even 1 does.

    From ``guess`` it goes up or down in strides that double, then halves the interval: two trials when ``guess`` is right,
    about 2 log2 of the distance when not. What fits is taken to fit at every smaller batch. Batches above ``limit`` are not
    tried.
    """
    fits, fails, stride = 0, limit + 1, 1
    batch = min(max(guess, 1), limit)
    while True:
        if (yield batch):
            fits = batch
        else:
            fails = batch
        if fails - fits == 1:
            return fits
        if fails > limit:
            batch = min(fits + stride, limit)
        elif fits == 0:
            batch = max(fails - stride, 1)
        else:
            batch = (fits + fails) // 2
        stride *= 2
