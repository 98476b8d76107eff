"""Drives a policy that plans ahead: from chunks of H actions to one action a control period.

| mode | a plan is made | meanwhile the robot |
|---|---|---|
| `synchronous` | within a step, after every `n_action_steps` steps (receding horizon) | waits: planning must be quick |
| `asynchronous` | in another thread, once the share `refill` of a chunk is left | does what is left of that chunk |

A chunk asked for in step s is for the steps s to s + H - 1, whenever it arrives: of one that arrives in step t the
first t - s actions are dropped, and more where observations are late, for then they tell of a step before s. Steps
are counted, not timed, so a tick that holds its targets for want of a reading delays the plan by one. Of several chunks
for a step the newest counts, or their average: temporal ensembling, Zhao et al. 2023 (arXiv:2304.13705), algorithm 2.
Axes: H horizon, N chunks, A action, D observation.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from mjx_policies.deploy.contract import ContractError
from mjx_policies.deploy.controller import ControlPolicy

WARM_UPS = 5  # plans that are timed before the first run
LATENCY_MARGIN = 1.5  # times the slowest of them, what a plan may take on a busier computer
MAX_ENSEMBLE = 50.0  # the weight of any chunk but one is below float64's last digit by then
ROUNDING = 1e-9  # what products of a share and a count, or of periods and seconds, may be off


class ChunkError(RuntimeError):
    """There is no action for this step, or planning is too slow to begin with; the message says why."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive actions of one plan.

    Attributes:
      start: the step that the first is for.
      action, target: [<= H, A].
    """

    start: int
    action: np.ndarray
    target: np.ndarray

    @property
    def end(self) -> int:
        """The first step that it has no action for."""
        return self.start + len(self.action)


@dataclasses.dataclass(frozen=True)
class Pending:
    """A plan that is being made.

    Attributes:
      future: action [H, A], target [H, A], and the planning policy's state.
      start: the step that its first action is for; None if asked by a run that is over, then nothing of it is used.
    """

    future: Future[tuple[Any, Any, Any]]
    start: int | None


@dataclasses.dataclass(frozen=True)
class ChunkState:
    """The state carried from step to step of a run: all of it, so that the next run cannot inherit any.

    Attributes:
      step: counts from 0.
      chunks: with actions for this step or later ones, the oldest first; one unless they are averaged.
      plan_state: of the planning policy, after its last plan.
      pending: at most one at a time.
      action, target: [A], of the last step.
      held: steps in a row, up to the last, that had no action of their own.
      allowed: how many there may be.
    """

    step: int
    chunks: tuple[Chunk, ...]
    plan_state: Any
    pending: Pending | None
    action: np.ndarray
    target: np.ndarray
    held: int
    allowed: int


class ChunkStep(NamedTuple):
    """The output of one step.

    Attributes:
      action, target: [A].
      state: for the next step.
      held: whether they are those of the step before, because no plan has arrived for this one.
    """

    action: np.ndarray
    target: np.ndarray
    state: ChunkState
    held: bool


@dataclasses.dataclass(frozen=True)
class ChunkStatistics:
    """Figures of all runs.

    Attributes:
      steps: how many there were.
      plans: that arrived.
      held: steps that repeated the one before, those at the start of a run included.
    """

    steps: int
    plans: int
    held: int


class ChunkedPolicy:
    """A `controller.ControlPolicy` made of one that plans ahead. For one robot; close it.

    A run starts from the pose `rest`, which the controller stands in. Until the first plan arrives, for as long as a
    plan may take and `hold_periods` more, an asynchronous policy answers with that target, and with the action 0, which
    is what a policy observes as its last action when an episode begins.

    Attributes:
      contract: of the policy, but with a horizon of 1.
      latency: s, longest that a plan may be expected to take: `LATENCY_MARGIN` times the slowest of `WARM_UPS` calls.

    Args:
      policy: whose steps return action [H, A] and target [H, A]. Its state goes from plan to plan. It must not be used
        elsewhere.
      mode: see the module.
      n_action_steps: steps from one plan to the next, synchronous, at most H; H unless given.
      refill: share of H, asynchronous, 0.5 unless given: a plan is asked for when no more actions than this are left.
        They must last longer than `latency`.
      ensemble: m of the weights exp(-m i), where i = 0 is the oldest chunk that has an action for the step; None takes
        the newest chunk alone. Actions and targets are averaged apart, which keeps them together where the target is
        an affine function of the action, as it is but for a clip.
      blend: steps over which a new chunk is faded in, linearly, where the one before has actions for them; 0 for a
        jump, which the controller's rate limit still bounds. Smoother, but the actions are then in neither plan.
      hold_periods: steps in a row, asynchronous, that may repeat the last action when the chunk ran out before the
        next one came.
      rest: [A] the pose, the target of a zero action unless given.
      late: steps, asynchronous, from when an observation is measured to when it is acted on. The first action of a plan
        is for when its observation was measured.
      executor: makes plans, asynchronous, one at a time; a thread unless given. It is shut down with the policy.
      clock: what `latency` is taken with, s.

    Raises:
      ContractError: the policy does not plan ahead, or its targets cannot be held.
      ValueError: an argument is out of range, or not for this mode.
      ChunkError: the policy fails, or takes too long for `refill`.
    """

    def __init__(
        self,
        policy: ControlPolicy,
        *,
        mode: Literal["synchronous", "asynchronous"] = "synchronous",
        n_action_steps: int | None = None,
        refill: float | None = None,
        ensemble: float | None = None,
        blend: int = 0,
        hold_periods: int = 2,
        rest: np.ndarray | None = None,
        late: int = 0,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        contract = policy.contract
        horizon, action_type = contract.action.horizon, contract.action.type
        if horizon < 2:
            raise ContractError("the policy has one action a step, there is nothing to chunk: drive it as it is")
        if mode not in ("synchronous", "asynchronous"):
            raise ValueError(f"mode is {mode!r}, it must be synchronous or asynchronous")
        if mode == "synchronous" and (refill is not None or executor is not None):
            raise ValueError(
                "refill and executor are for the asynchronous mode: choose it, or give n_action_steps instead"
            )
        if mode == "synchronous" and late:
            raise ValueError("late is for the asynchronous mode: a robot that waits for its plan acts on the newest")
        if mode == "asynchronous" and n_action_steps is not None:
            raise ValueError("n_action_steps is for the synchronous mode: choose it, or give refill instead")
        if mode == "asynchronous" and action_type != "joint_position":
            raise ContractError(f"{action_type} targets cannot be held until a plan arrives: use the synchronous mode")
        n_action_steps = _whole("n_action_steps", horizon if n_action_steps is None else n_action_steps, 1, horizon)
        refill = _number("refill", 0.5 if refill is None else refill)
        if not 0 < refill <= 1:
            raise ValueError(f"refill is {refill}, it must be above 0 and at most 1")
        if ensemble is not None and blend:
            raise ValueError("blend has no meaning where chunks are averaged: give either ensemble or blend")
        if mode == "synchronous" and n_action_steps == horizon and (ensemble is not None or blend):
            raise ValueError(f"chunks executed to their end never overlap: give an n_action_steps below {horizon}")
        if ensemble is not None and abs(_number("ensemble", ensemble)) > MAX_ENSEMBLE:
            raise ValueError(
                f"ensemble is {ensemble}, it must lie within ±{MAX_ENSEMBLE:g}, where one chunk has it all"
            )

        self.contract = dataclasses.replace(contract, action=dataclasses.replace(contract.action, horizon=1))
        self._policy = policy
        self._horizon = horizon
        self._ensemble = ensemble
        self._blend = _whole("blend", blend, 0, horizon)
        self._hold_periods = _whole("hold_periods", hold_periods, 0, None)
        self._late = _whole("late", late, 0, horizon - 1)
        defaults = np.array([joint.default for joint in contract.joints], np.float32)
        self._rest = defaults if rest is None else np.array(rest, np.float32)
        if self._rest.shape != defaults.shape or not np.isfinite(self._rest).all():
            raise ValueError(f"rest is {rest}, it must be {defaults.size} finite numbers")
        self._clock = clock
        asynchronous = mode == "asynchronous"
        self._ask_at = (
            math.floor(refill * horizon + ROUNDING) if asynchronous else horizon - n_action_steps
        )  # actions left
        self._last: Future[tuple[Any, Any, Any]] | None = None  # not checked yet
        self._closed = False
        self._steps = self._plans = self._held = 0
        if not asynchronous:
            executor = Inline()
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="plan")
        try:
            self.latency = self._measure_latency()
            periods = self.latency / contract.timing.control_dt
            self._latency_steps = math.floor(periods + ROUNDING) + 1  # the fewest that last longer
            if asynchronous:
                self._check_refill(refill)
        except BaseException:
            self.close()
            raise

    def initial_state(self) -> ChunkState:
        """The state of a new run, at the pose `rest`. An old run's plan is not used, but an error in it is raised."""
        pending = None if self._last is None else Pending(self._last, None)
        # One plan of this run, and where the thread is still busy for the last run, that one before it.
        plans = 1 if self._last is None or self._last.done() else 2
        return ChunkState(
            step=0,
            chunks=(),
            plan_state=self._policy.initial_state(),
            pending=pending,
            action=np.zeros_like(self._rest),
            target=self._rest,
            held=0,
            allowed=plans * self._latency_steps + self._hold_periods,
        )

    def step(self, observation: np.ndarray, state: ChunkState) -> ChunkStep:
        """One control period, from an observation [D]. Waits for nothing in the asynchronous mode.

        Raises:
          ChunkError: planning failed, the cause is attached, or no plan has arrived for too long.
        """
        if self._closed:
            raise ChunkError("this policy was closed: make another one")
        state = self._collect(state)
        left = state.chunks[-1].end - state.step if state.chunks else 0
        if state.pending is None and left <= self._ask_at:
            # A copy, for the caller may use its array again while the other thread reads this one.
            self._last = self._executor.submit(self._plan, np.array(observation), state.plan_state)
            state = self._collect(dataclasses.replace(state, pending=Pending(self._last, state.step - self._late)))
        return self._serve(state)

    @property
    def statistics(self) -> ChunkStatistics:
        """The figures until now."""
        return ChunkStatistics(self._steps, self._plans, self._held)

    def close(self) -> None:
        """Waits for the thread to end. What it is planning is lost, an error in it too. May be called twice."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ChunkedPolicy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _plan(self, observation: np.ndarray, plan_state: Any) -> tuple[Any, Any, Any]:
        """Makes a plan, in the other thread."""
        step = self._policy.step(observation, plan_state)
        return step.action, step.target, step.state

    def _collect(self, state: ChunkState) -> ChunkState:
        """Takes in the pending plan if it is finished."""
        pending = state.pending
        if pending is None or not pending.future.done():
            return state
        if pending.future is self._last:
            self._last = None
        if (error := pending.future.exception()) is not None:
            raise ChunkError(f"planning failed: {_one_line(error)}") from error
        if pending.start is None:
            return dataclasses.replace(state, pending=None)
        action, target, plan_state = pending.future.result()
        for name, array in (("action", action), ("target", target)):
            self._check_array(name, array)
            if not np.isfinite(array).all():
                row, column = np.argwhere(~np.isfinite(array))[0]
                raise ChunkError(f"the plan has {name}[{row}, {column}] = {array[row, column]}, it must be finite")
        self._plans += 1
        state = dataclasses.replace(state, pending=None, plan_state=plan_state)
        past = state.step - pending.start
        if past >= self._horizon:
            return state  # nothing of it is of use any more
        chunk = Chunk(state.step, action[past:], target[past:])
        if self._ensemble is not None:
            chunks = (*state.chunks, chunk)
        elif state.chunks:
            chunks = (fade_in(state.chunks[-1], chunk, self._blend),)
        else:
            chunks = (chunk,)
        return dataclasses.replace(state, chunks=chunks, allowed=self._hold_periods)

    def _serve(self, state: ChunkState) -> ChunkStep:
        """Takes the action of this step out of the plans."""
        chunks, held = state.chunks, 0
        if chunks:
            action, target = average(chunks, state.step, self._ensemble or 0.0)
        else:
            held = state.held + 1
            if held > state.allowed:
                raise ChunkError(
                    f"no plan arrived in time and the last action was repeated {state.held} times, the limit: "
                    "free the computer, or raise refill or hold_periods"
                )
            action, target = state.action, state.target
        self._steps += 1
        self._held += held > 0
        following = dataclasses.replace(
            state,
            step=state.step + 1,
            chunks=tuple(chunk for chunk in chunks if chunk.end > state.step + 1),
            action=action,
            target=target,
            held=held,
        )
        return ChunkStep(action.copy(), target.copy(), following, held > 0)

    def _check_array(self, name: str, array: Any) -> None:
        shape = (self._horizon, len(self.contract.joints))
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.shape != shape:
            found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ChunkError(f"the plan's {name} must be numbers {list(shape)}, not {found}: export the policy again")

    def _measure_latency(self) -> float:
        """See `latency`. Calls the policy as it will be used, way to the other thread and back included."""
        observation, slowest = np.zeros(self.contract.observation_size, np.float32), 0.0
        for _ in range(WARM_UPS):
            start = self._clock()
            try:
                plan = self._executor.submit(self._plan, observation, self._policy.initial_state()).result()
            except Exception as error:
                raise ChunkError(f"the policy cannot plan: {_one_line(error)}") from error
            slowest = max(slowest, self._clock() - start)
            for name, array in zip(("action", "target"), plan, strict=False):
                self._check_array(name, array)
        return LATENCY_MARGIN * slowest

    def _check_refill(self, refill: float) -> None:
        """Checks that chunks do not run out while plans take no longer than `latency`.

        A plan takes d steps, so the first d + `late` actions of a new chunk are past when it arrives. A high `refill`
        asks for the next plan at once, which then has the steps of the others. So d may exceed neither these nor what
        `refill` leaves.
        """
        horizon, needed = self._horizon, self._latency_steps
        dt = self.contract.timing.control_dt
        takes = f"a plan may take {1e3 * self.latency:.1f} ms, {LATENCY_MARGIN:g} times the slowest of {WARM_UPS} calls"
        left = horizon - self._late
        if 2 * needed > left:
            raise ChunkError(
                f"{takes}, more than half of what a chunk of {left} actions lasts, {1e3 * left * dt:.1f} ms: no "
                f"refill is enough, use a faster computer or export {2 * needed + self._late} actions or more"
            )
        if self._ask_at < needed:
            smallest = math.ceil(1000 * needed / horizon - ROUNDING) / 1000
            raise ChunkError(
                f"{takes}, but refill {refill:g} asks for it when {self._ask_at} of {horizon} actions are left, which "
                f"last {1e3 * self._ask_at * dt:.1f} ms: use a refill of {smallest:g} or more"
            )


def average(chunks: tuple[Chunk, ...], step: int, m: float) -> tuple[np.ndarray, np.ndarray]:
    """Action [A] and target [A] for a step, averaged over N chunks with weights exp(-m i), i = 0 for the first.

    Args:
      chunks: all of which have an action for it, the oldest first.
      step: the step.
      m: above 0 the oldest weighs most.
    """
    exponents = -m * np.arange(len(chunks))
    weights = np.exp(exponents - exponents.max())  # [N]; no overflow whatever the sign of m
    weights /= weights.sum()

    def mean(rows: list[np.ndarray]) -> np.ndarray:
        # In float64, for float32 rows that agree to come out as they were.
        return (weights @ np.array(rows, np.float64)).astype(rows[-1].dtype)

    return (
        mean([chunk.action[step - chunk.start] for chunk in chunks]),
        mean([chunk.target[step - chunk.start] for chunk in chunks]),
    )


def fade_in(old: Chunk, new: Chunk, steps: int) -> Chunk:
    """The new chunk, mixed in its first steps with the old one: 1 / (steps + 1) of the new, then 2 / (steps + 1), ...

    Where the old chunk ends before, the rest of the new one is as it was. At 0 steps all of it is.
    """
    common = max(0, min(steps, old.end - new.start, len(new.action)))
    share = (np.arange(1, common + 1) / (steps + 1))[:, None]

    def mix(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        first = new.start - old.start
        mixed = after.copy()
        mixed[:common] = (1 - share) * before[first : first + common] + share * after[:common]
        return mixed

    return Chunk(new.start, mix(old.action, new.action), mix(old.target, new.target))


class Inline(Executor):
    """Does what it is told at once, in the same thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A finished future with the function's result or its error."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # is in the future, as for any executor
            future.set_exception(error)
        return future


def _whole(name: str, value: int, low: int, high: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        reach = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"{name} is {value!r}, it must be a whole number, {reach}")
    return value


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, it must be a finite number")
    return float(value)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
