"""The contract between an exported policy and a robot, as typed data and as canonical JSON.

The contract travels in the policy's own ONNX file. It is generated from the tables a policy was trained with, and read
back strictly: an unknown version, a missing, unknown or mistyped key, and a number that is not finite or that no robot
has is refused. Keys that this library does not know are passed over in a contract of a newer minor version alone.
Angles in rad, torques in N m, times in s; of a joint that slides, such as a gripper, m and N in their place.
Axes: D observation, A action (one for each joint).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, cast

from mjx_policies.spec import CommandRange, GaitClock

METADATA_KEY = "mjx_policies.contract"
SCHEMA_VERSION = "1.0"
"""Readers refuse another number before the dot; the one behind it grows with keys that old readers may not need."""
MAX_BYTES = 4 * 2**20  # of the JSON
MAX_EXAMPLES = 64  # golden; each is a step of the policy where it is loaded

# What a robot can be, generously. Beyond it numbers are no robot's, and arithmetic with them overflows or never ends.
MIN_PERIOD, MAX_PERIOD = 1e-4, 1.0  # s, of control
MAX_AGE = 2.0  # s, of a measurement that is acted on, and of delays
MAX_POSITION, MAX_SPEED, MAX_EFFORT = 1e3, 1e3, 1e4  # rad, rad/s, N m, or m, m/s, N
MAX_STIFFNESS, MAX_DAMPING = 1e5, 1e4  # N m / rad, N m s / rad
MAX_HZ, MAX_BRAKING = 100.0, 60.0  # of a gait; s
MAX_OBSERVED, SMALLEST = 1e6, 1e-3  # any other number; what must be above zero at all


class ContractError(ValueError):
    """A contract, or a file that should hold one, is refused; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class RobotModel:
    """The robot that a policy was trained for.

    Attributes:
      name: such as `go2`.
      model_sha256: of the model it was trained on.
      quaternion_order: of orientations, `wxyz`.
    """

    name: str
    model_sha256: str
    quaternion_order: str


@dataclasses.dataclass(frozen=True)
class Timing:
    """The times of a policy, in seconds.

    Attributes:
      control_dt: from one action to the next.
      physics_dt: of the simulation it was trained in.
      max_observation_age: beyond which a measurement may not be acted on.
      delay: [2] shortest and longest time from an action to the motors that training covered.
    """

    control_dt: float
    physics_dt: float
    max_observation_age: float
    delay: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Joint:
    """One joint with its servo; the order of joints is that of the action.

    Attributes:
      default: target of a zero action.
      home: angle at which the observation's joint position is zero.
      scale: target change for one unit of action.
      stiffness, damping: gains of the servo, N m / rad and N m s / rad.
      lower, upper: hard limits of the angle.
      soft_lower, soft_upper: limits that a target is kept within.
      velocity: highest speed, rad/s; 0 where a torque policy does not say.
      effort: highest torque.
    """

    name: str
    default: float
    home: float
    scale: float
    stiffness: float
    damping: float
    lower: float
    upper: float
    soft_lower: float
    soft_upper: float
    velocity: float
    effort: float


@dataclasses.dataclass(frozen=True)
class ContractTerm:
    """One row of the observation; the vector holds `scale * value`, term after term.

    Attributes:
      size: number of scalars in one time step.
      unit, frame: of the raw value.
      clip: bound of the absolute raw value, 0 for none.
      history: time steps held, of which the newest comes first if `newest_first`.
      fill: what a history holds at the start: `first`, the first reading, or `zero`.
      noise, bias: half-widths of the errors that training covered, in `unit`.
      measured: False for what the controller itself keeps.
    """

    name: str
    size: int
    unit: str
    frame: str
    scale: float
    clip: float
    history: int
    newest_first: bool
    fill: str
    noise: float
    bias: float
    measured: bool


@dataclasses.dataclass(frozen=True)
class Action:
    """The action that comes out of the graph.

    Attributes:
      type: of the graph's output `target` [A]: `joint_position`, for the joints' servos, or `joint_torque`.
      clip: bound of the absolute action, 0 for none.
      rate_limit: of a target, rad/s; 0 for none, of a torque.
      horizon: actions in one output, 1 unless the policy plans ahead.
    """

    type: str
    clip: float
    rate_limit: float
    horizon: int


@dataclasses.dataclass(frozen=True)
class State:
    """A tensor that the graph passes from one step to the next; its first axis is the batch.

    Attributes:
      input, output: names in the graph.
      shape: without the batch.
      reset: value of every entry when the policy starts.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    reset: float


@dataclasses.dataclass(frozen=True)
class NoiseInput:
    """A random input of the graph; its first axis is the batch.

    Attributes:
      shape: without the batch.
      distribution: `normal`, of unit variance; `uniform` in [0, 1); `gumbel`, the standard one.
      deterministic: value of every entry where no randomness is wanted.
    """

    input: str
    shape: tuple[int, ...]
    distribution: str
    deterministic: float


@dataclasses.dataclass(frozen=True)
class Range:
    """The range that a quantity of the simulation was drawn from during training."""

    name: str
    operation: str
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Training:
    """The training that the policy comes from; `commit` is empty if that is not known."""

    task: str
    steps: int
    seed: int
    commit: str
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Golden:
    """Inputs and what must come out of them.

    Attributes:
      inputs, outputs: by name in the graph, each with a row for each example, flattened.
      sha256: of both, see `golden_sha256`.
      tolerance: largest absolute difference allowed, see `allowance`.
    """

    inputs: dict[str, tuple[tuple[float, ...], ...]]
    outputs: dict[str, tuple[tuple[float, ...], ...]]
    sha256: str
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Contract:
    """All that a controller has to know of a policy.

    Attributes:
      gait: absent from policies without a clock.
      graph_sha256: of the file's graph, weights included.
      sha256: of the contract itself, see `seal`; names the policy in logs.
    """

    schema_version: str
    robot: RobotModel
    timing: Timing
    joints: tuple[Joint, ...]
    observation: tuple[ContractTerm, ...]
    action: Action
    state: tuple[State, ...]
    noise: tuple[NoiseInput, ...]
    commands: tuple[CommandRange, ...]
    gait: GaitClock | None
    randomization: tuple[Range, ...]
    training: Training
    golden: Golden
    graph_sha256: str
    sha256: str = ""

    @property
    def observation_size(self) -> int:
        """The number D of observed numbers."""
        return sum(term.size * term.history for term in self.observation)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The names of the joints in the order of the action."""
        return tuple(joint.name for joint in self.joints)


def dumps(contract: Contract) -> str:
    """Canonical JSON, sealed: equal contracts give equal bytes."""
    return _canonical(dataclasses.asdict(seal(contract)))


def seal(contract: Contract) -> Contract:
    """The contract with its own hash, so that a number that changed by accident is noticed: a limit, a gain.

    Whoever changes one on purpose can change the hash too: compare `sha256` with the one that the export printed.
    """
    contract = _decode(Contract, json.loads(_canonical(dataclasses.asdict(contract))), "contract")  # 20 becomes 20.0
    blank = _canonical(dataclasses.asdict(dataclasses.replace(contract, sha256="")))
    return dataclasses.replace(contract, sha256=hashlib.sha256(blank.encode()).hexdigest())


def loads(text: str) -> Contract:
    """Reads what `dumps` wrote, and nothing else.

    Raises:
      ContractError: see the module.
    """
    if len(text) > MAX_BYTES:
        raise ContractError(f"the contract has {len(text):,} characters, more than the {MAX_BYTES:,} allowed")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"the contract is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ContractError("the contract is not a JSON object")
    version = value.get("schema_version")
    major, minor = SCHEMA_VERSION.split(".")
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    if found is None or found[1] != major:
        raise ContractError(f"the contract has schema version {version!r}, this library reads version {major}.x")
    contract = _decode(Contract, value, "contract", newer=int(found[2]) > int(minor))
    _check(contract)
    written = hashlib.sha256(_canonical({**value, "sha256": ""}).encode()).hexdigest()  # keys passed over included
    if contract.sha256 not in (written, seal(contract).sha256):
        raise ContractError("the contract does not match its own sha256: the file was altered")
    return contract


def allowance(tolerance: float, largest: float) -> float:
    """The tolerance for an output whose golden values reach up to `largest`: above 100, in proportion to it.

    Float32 is no finer there, and a tolerance of the contract's is at most 1e-3.
    """
    return tolerance * max(1.0, largest / 100)


def golden_sha256(inputs: dict[str, Any], outputs: dict[str, Any]) -> str:
    """The hash of the canonical JSON of both."""
    return hashlib.sha256(_canonical([inputs, outputs]).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _decode(kind: Any, value: Any, where: str, newer: bool = False) -> Any:
    """`value` as an instance of the annotation `kind`; of a `newer` contract unknown keys are passed over."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(args[0], value, where, newer)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ContractError(f"{where} must be an object")
        hints = typing.get_type_hints(kind)
        missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
        if missing or (unknown and not newer):
            fault = f"lacks {', '.join(missing)}" if missing else f"has unknown keys {', '.join(unknown)}"
            raise ContractError(f"{where} {fault}")
        fields = {name: _decode(hint, value[name], f"{where}.{name}", newer) for name, hint in hints.items()}
        return cast(Any, kind)(**fields)
    if origin is tuple:
        if not isinstance(value, list):
            raise ContractError(f"{where} must be a list")
        return tuple(_decode(args[0], item, f"{where}[{i}]", newer) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ContractError(f"{where} must be an object")
        return {name: _decode(args[1], item, f"{where}.{name}", newer) for name, item in value.items()}
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise ContractError(f"{where} must be a finite number")
        return float(value)
    if type(value) is not kind:
        raise ContractError(f"{where} must be of type {kind.__name__}")
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _check(contract: Contract) -> None:
    """Checks what types cannot express."""

    def need(condition: bool, sentence: str) -> None:
        if not condition:
            raise ContractError(sentence)

    def choice(where: str, value: str, known: Sequence[str]) -> None:
        need(value in known, f"{where} is {value!r}, this library knows {', '.join(known)}")

    def within(where: str, owner: Any, **limits: float | tuple[float, float]) -> None:
        """Checks that numbers lie between two limits, or between minus and plus one."""
        for name, limit in limits.items():
            low, high = limit if isinstance(limit, tuple) else (-limit, limit)
            value = getattr(owner, name)
            for number in value if isinstance(value, tuple) else (value,):
                need(low <= number <= high, f"{where}{name} is {number:g}, it must lie between {low:g} and {high:g}")

    timing, action = contract.timing, contract.action
    servo = action.type == "joint_position"
    choice("contract.robot.quaternion_order", contract.robot.quaternion_order, ("wxyz",))
    choice("contract.action.type", action.type, ("joint_position", "joint_torque"))
    for name in ("control_dt", "physics_dt", "max_observation_age"):
        need(getattr(timing, name) > 0, f"contract.timing.{name} must be above zero")
    need(len(timing.delay) == 2 and 0 <= timing.delay[0] <= timing.delay[1], "contract.timing.delay must rise from 0")
    within(
        "contract.timing.",
        timing,
        control_dt=(MIN_PERIOD, MAX_PERIOD),
        physics_dt=(1e-6, MAX_PERIOD),
        max_observation_age=(MIN_PERIOD, MAX_AGE),
        delay=MAX_AGE,
    )
    need(bool(contract.joints), "contract.joints is empty")
    for kind in ("joints", "observation", "commands"):
        names = [item.name for item in getattr(contract, kind)]
        need(len(set(names)) == len(names), f"contract.{kind} has a name twice")
    for joint in contract.joints:
        where = f"contract.joints: {joint.name}"
        need(joint.lower <= joint.soft_lower < joint.soft_upper <= joint.upper, f"{where} has limits out of order")
        for name in ("stiffness", "damping"):
            need(getattr(joint, name) >= 0, f"{where}: {name} must not be negative")
        need(joint.effort > 0, f"{where}: effort must be above zero")
        need(joint.velocity >= 0 and (joint.velocity > 0 or not servo), f"{where}: velocity must be above zero")
        reach = MAX_POSITION if servo else MAX_EFFORT
        within(
            f"{where}: ",
            joint,
            default=reach,
            home=reach,
            scale=reach,
            lower=reach,
            upper=reach,
            stiffness=MAX_STIFFNESS,
            damping=MAX_DAMPING,
            velocity=(SMALLEST if servo else 0.0, MAX_SPEED),
            effort=(SMALLEST, MAX_EFFORT),
        )
    for term in contract.observation:
        where = f"contract.observation: {term.name}"
        need(term.size > 0 and term.history > 0, f"{where}: size and history must be at least 1")
        need(
            term.clip >= 0 and term.noise >= 0 and term.bias >= 0, f"{where}: clip, noise and bias must not be negative"
        )
        within(f"{where}: ", term, scale=MAX_OBSERVED, clip=MAX_OBSERVED, noise=MAX_OBSERVED, bias=MAX_OBSERVED)
        choice(f"{where}: fill", term.fill, ("first", "zero"))
    need(action.clip >= 0 and action.horizon > 0, "contract.action: clip must not be negative, horizon at least 1")
    need(action.rate_limit > 0 or not servo, "contract.action: rate_limit must be above zero")
    # A clip below the smallest number would hold every action at zero, which 0 says for "none".
    smallest = SMALLEST if action.clip > 0 else 0.0
    within("contract.action.", action, clip=(smallest, MAX_OBSERVED))
    within("contract.action.", action, rate_limit=(SMALLEST if servo else 0.0, MAX_SPEED))
    for command in contract.commands:
        need(command.low <= command.high, f"contract.commands: {command.name} has its range upside down")
        within(f"contract.commands: {command.name}: ", command, low=MAX_POSITION, high=MAX_POSITION)
    if contract.gait is not None:
        need(contract.gait.hz > 0, "contract.gait.hz must be above zero")
        within("contract.gait.", contract.gait, hz=(SMALLEST, MAX_HZ), braking_seconds=(0.0, MAX_BRAKING))
    for noise in contract.noise:
        choice(f"contract.noise: {noise.input}", noise.distribution, ("normal", "uniform", "gumbel"))
    golden = contract.golden
    need(0 < golden.tolerance <= 1e-3, "contract.golden.tolerance must lie between 0 and 1e-3")
    need(bool(golden.inputs) and bool(golden.outputs), "contract.golden is empty")
    rows = {len(values) for values in (*golden.inputs.values(), *golden.outputs.values())}
    need(len(rows) == 1 and rows != {0}, "contract.golden must hold equally many examples of everything")
    need(max(rows) <= MAX_EXAMPLES, f"contract.golden has more than {MAX_EXAMPLES} examples")
    found = golden_sha256(golden.inputs, golden.outputs)
    need(found == golden.sha256, "contract.golden does not match its own sha256: the file was altered")
