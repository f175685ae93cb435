"""Which weights ZeRO-3 has gathered at each moment, after DeepSpeed 0.19.8 (``deepspeed/runtime/zero``).

Every rank holds a part of each weight. A module's weights are gathered when it is entered, forward and backward, together
with those of modules to come; they are given up when it is left, unless they are needed again soon.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from ablation.vram.sharding.rewrite import Rewrite
from ablation.vram.trace import KIND, KINDS, Call, Modules


@dataclass(frozen=True)
class Limits:
    """Settings of ``zero_optimization`` (config.py, where all but the first carry the prefix ``stage3_``), in elements."""

    prefetch_bucket_size: int = 50_000_000
    max_live_parameters: int = 1_000_000_000
    max_reuse_distance: int = 1_000_000_000
    param_persistence_threshold: int = 100_000


@dataclass
class _Flight:
    """An all-gather: one storage for all its parameters, and whether they were taken out of it."""

    storage: int
    parameters: list[int]
    landed: bool = False


class Coordinator:
    """Gathers and gives up weights in a rewrite (partitioned_param_coordinator.py), from the run's first step on.

    The first forward pass shows the order of the modules: nothing is gathered ahead or kept in it. ``element``: bytes of an
    element.
    """

    def __init__(self, rewrite: Rewrite, watched: Modules, gpus: int, element: int, limits: Limits):
        self.rewrite, self.watched, self.gpus, self.element, self.limits = rewrite, watched, gpus, element, limits
        self.every = sorted({p for own in watched.parameters for p in own})
        self.elements = {p: int(rewrite.old.sizes[p]) // element for p in self.every}
        self.persistent = [p for p in self.every if self.elements[p] <= limits.param_persistence_threshold]
        self.kept = set(self.persistent)
        self.whole: dict[int, int] = {}  # parameters that are there, and their storages
        self.flying: dict[int, _Flight] = {}  # parameters that no module has taken from their all-gather yet
        self.users: defaultdict[int, set[int]] = defaultdict(set)  # modules under way that use a parameter
        self.backward: dict[int, None] = {}  # modules whose backward pass is under way
        self.recomputed: defaultdict[int, set[int]] = defaultdict(set)  # frozen, gathered again within such a pass and for it
        self.live = 0  # elements, as DeepSpeed counts them
        self.passes = 0
        self.decided: dict[tuple[int, int], set[int]] = {}  # what a module gives up at a step

    def start(self, place: float, order: list[int]) -> None:
        """A forward pass of the whole model begins; ``order``: the modules entered from here to the next one."""
        for parameter in list(self.flying):
            self._take(place, parameter)
            self._release(place, parameter)
        self.step = self.live = 0
        self.passes += 1
        self.queue = deque((p, step) for step, module in enumerate(order) for p in sorted(self.watched.parameters[module]))
        self.fetched_for = defaultdict(lambda: -1)
        self.uses, self.reach = defaultdict(list), [0]
        for step, module in enumerate(order):
            for p in self.watched.parameters[module]:
                self.uses[p].append(step)
            self.reach.append(self.reach[-1] + sum(self.elements[p] for p in self.watched.parameters[module]))

    def enter(self, call: Call) -> None:
        """``fetch_sub_module``."""
        own = self.watched.parameters[call.module]
        if not call.forward:
            self.backward[call.module] = None
        self._gather(call.event, own)
        for p in own:
            self.users[p].add(call.module)
            if call.forward and self.backward and self.rewrite.old.kinds[p] != KIND["trained_weights"]:
                owner = next(reversed(self.backward))
                self.recomputed[owner].add(p)
                self.users[p].add(owner)
            if p in self.flying:
                self._take(call.event, p)
        if self.passes > 1:
            self._prefetch(call.event, own)
        self.step += 1

    def leave(self, call: Call) -> None:
        """``release_sub_module``."""
        own = self.watched.parameters[call.module]
        done = self._done(call.module) if self.passes > 1 else own
        again = set() if call.forward else self.recomputed.pop(call.module, set())
        if not call.forward:
            self.backward.pop(call.module, None)
        self._give_up(call, {*own, *again}, done | (again - self.kept))

    def end_backward(self, place: float) -> None:
        """``release_backward_leftovers``: of modules that were not seen to be left."""
        for module in reversed(self.backward):
            parameters = {*self.watched.parameters[module], *self.recomputed.pop(module, set())}
            self._give_up(Call(place, module, False, False), parameters, parameters - self.kept)
        self.backward.clear()

    def release_all(self, place: float) -> None:
        """``partition_all_parameters``, before the optimizer's step."""
        for p in list(self.flying):
            self._take(place, p)
        self.users.clear()
        for p in list(self.whole):
            self._release(place, p)

    def keep_small(self, place: float) -> None:
        """``_post_step``: small parameters are whole between steps."""
        for p in self.persistent:
            self.whole[p] = self.rewrite.allocate(place, self.padded(p), self._kind(p))

    def padded(self, parameter: int) -> int:
        """Bytes of all ranks' parts."""
        return self.part(parameter) * self.gpus * self.element

    def part(self, parameter: int) -> int:
        """Elements of one rank's part."""
        return -(-self.elements[parameter] // self.gpus)

    def _kind(self, parameter: int) -> str:
        return KINDS[self.rewrite.old.kinds[parameter]]

    def _gather(self, place: float, parameters: Iterable[int]) -> None:
        wanted = sorted(p for p in parameters if p not in self.whole and p not in self.flying)
        if not wanted:
            return
        self.live += sum(self.elements[p] for p in wanted)
        kind = "communication" if len(wanted) > 1 else self._kind(wanted[0])
        flight = _Flight(self.rewrite.allocate(place, sum(map(self.padded, wanted)), kind), wanted)
        self.flying.update(dict.fromkeys(wanted, flight))

    def _take(self, place: float, parameter: int) -> None:
        """Of several parameters that were gathered together each is copied out; one alone stays where it is."""
        flight = self.flying.pop(parameter)
        alone = len(flight.parameters) == 1
        if not flight.landed:
            flight.landed = True
            for p in flight.parameters:
                size = self.elements[p] * self.element
                self.whole[p] = flight.storage if alone else self.rewrite.allocate(place, size, self._kind(p))
        if not alone and not any(p in self.flying for p in flight.parameters):
            self.rewrite.free(place, flight.storage)

    def _prefetch(self, place: float, own: set[int]) -> None:
        new, passed = {p for p in own if self.fetched_for[p] < self.step}, set()
        while self.queue and len(passed) < len(new):
            p, step = self.queue.popleft()
            self.fetched_for[p] = step
            passed.add(p)
        room = min(self.limits.max_live_parameters - self.live, self.limits.prefetch_bucket_size)
        chosen, elements = set(), 0
        while self.queue and elements < room:
            p, step = self.queue.popleft()
            self.fetched_for[p] = max(self.fetched_for[p], step)
            if p not in self.whole and p not in self.flying and p not in chosen:
                chosen.add(p)
                elements += self.elements[p]
        self._gather(place, chosen)

    def _done(self, module: int) -> set[int]:
        """``__params_to_release``: decided once, in the second forward pass, and remembered."""
        key = module, self.step
        if key not in self.decided:
            own = self.watched.parameters[module] - self.kept
            self.decided[key] = {p for p in own if self.fetched_for[p] <= self.step and not self._soon(p)}
        return self.decided[key]

    def _soon(self, parameter: int) -> bool:
        """Whether it is used again within the reuse distance."""
        uses = self.uses[parameter]
        following = bisect_left(uses, self.step)
        if following == len(uses):
            return False
        return self.reach[uses[following]] - self.reach[self.step] < self.limits.max_reuse_distance

    def _give_up(self, call: Call, parameters: set[int], done: set[int]) -> None:
        for p in parameters:
            self.users[p].discard(call.module)
            if p in done:
                self._release(call.event, p)

    def _release(self, place: float, parameter: int) -> None:
        if parameter in self.whole and not self.users[parameter]:
            self.rewrite.free(place, self.whole.pop(parameter))
            self.live -= self.elements[parameter]
