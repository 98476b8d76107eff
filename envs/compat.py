"""Our tasks as environments of other libraries, and theirs as ours. No other file knows Brax, Playground or Gymnasium.

    to_brax(env)       a task for Brax's wrappers and trainers
    from_brax(env)     an environment of Brax or MuJoCo Playground, for `vectorize` and our learners
    to_gymnasium(env)  one robot as a `gymnasium.Env`

None of these libraries is imported before the function that needs it is called. Axes: D observations, P privileged
ones, A actions.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from mjx_policies.envs.base import DynamicsSampler, Env, EnvSpec, EnvState, Nominal, restart
from mjx_policies.envs.physics.base import Data, Dynamics
from mjx_policies.envs.vectorize import sound
from mjx_policies.spec import ActionTable, Term
from mjx_policies.types import Array, Observation, TimeStep, actuator_targets

_NOMINAL = Nominal()
ObservationForm = Literal["dict", "state"]
"""`dict`: `"state"` [D], and `"privileged_state"` [D + P] where the task has one, all that a critic may see, as
Playground names it. `state`: the vector [D] alone."""


def to_brax(env: Env, dynamics: DynamicsSampler = _NOMINAL, observation: ObservationForm = "dict") -> Any:
    """A task, wrapped or not, as a `brax.envs.base.Env`, to be wrapped and trained by Brax.

    `State.pipeline_state` holds the whole state of the task, commands and robot included, because that is what Brax's
    `AutoResetWrapper` puts back: there, each environment starts every episode from its first state, with its first
    robot. `info["time_out"]` is 1 where the task itself cut an episode off; time limits are `EpisodeWrapper`'s. A robot
    whose state is not finite ends its episode without a reward. Metrics with nothing to measure are 0, since Brax adds
    them up.

    Args:
      env: on the backend `cpu` or `mjx`; Brax's wrappers cannot select between states of `warp`.
      dynamics: draws the robot at each `reset`, from the key given there.
      observation: see `ObservationForm`.

    Raises:
      ValueError: Brax is not installed.
    """
    base = _import("brax.envs.base", "to_brax", "brax", "'mjx-policies[brax]'")

    BraxEnv: Any = base.Env  # no type checker can follow an import by name

    class BraxTask(BraxEnv):
        """One of our tasks behind Brax's protocol."""

        def reset(self, rng: Array) -> Any:
            """Starts an episode; `rng` is a key of either kind."""
            key_dynamics, key_reset = jax.random.split(rng)
            state, timestep = env.reset(key_reset, dynamics(key_dynamics).dynamics)
            zero = jnp.zeros(())
            metrics = _without_nan(timestep.metrics)
            return base.State(state, _arrange(timestep.obs, observation), zero, zero, metrics, {"time_out": zero})

        def step(self, state: Any, action: Array) -> Any:
            """Advances one control period."""
            inner, timestep = env.step(state.pipeline_state, action)
            obs = _arrange(timestep.obs, observation)
            finite = sound(env, state.pipeline_state, inner, timestep)
            return state.replace(
                pipeline_state=inner,
                obs=jax.tree.map(lambda new, old: jnp.where(finite, new, old), obs, state.obs),
                reward=jnp.where(finite, timestep.reward, 0.0),
                done=jnp.where(timestep.terminated | timestep.truncated | ~finite, 1.0, 0.0),
                metrics=state.metrics | _without_nan(timestep.metrics),
                info=state.info | {"time_out": jnp.where(timestep.truncated & finite, 1.0, 0.0)},
            )

        @property
        def observation_size(self) -> Any:
            obs = jax.eval_shape(self.reset, jax.random.PRNGKey(0)).obs
            return {name: value.shape for name, value in obs.items()} if isinstance(obs, dict) else obs.shape[-1]

        @property
        def action_size(self) -> int:
            return env.spec.action.size

        @property
        def backend(self) -> str:
            return type(env.physics).__name__.removesuffix("Physics").lower()

        @property
        def dt(self) -> float:
            """The seconds between actions."""
            return env.spec.control_dt

    return BraxTask()


@struct.dataclass
class BraxData:
    """The coordinates of a Brax pipeline that has other names for them.

    Attributes:
      inner: the pipeline's state.
    """

    inner: Any

    @property
    def qpos(self) -> Array:
        """The coordinates [nq]."""
        return self.inner.q

    @property
    def qvel(self) -> Array:
        """The velocities [nv]."""
        return self.inner.qd


class BraxPhysics:
    """The part of `Physics` that `vectorize` needs, of a physics that steps inside a foreign environment.

    Attributes:
      model: of the environment; an empty one where that has none.
      substeps: physics steps in one control period.
    """

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model
        self.substeps = substeps

    def init(self, qpos: Array, qvel: Array, dynamics: Mapping[str, Array]) -> Data:
        """Raises ValueError: only the environment itself can make its states."""
        raise ValueError("the physics of a Brax environment cannot be used apart from it: call its reset")

    def step(self, data: Data, ctrl: Array, dynamics: Mapping[str, Array]) -> Data:
        """Raises ValueError: only the environment itself can advance its states."""
        raise ValueError("the physics of a Brax environment cannot be used apart from it: call its step")

    def where(self, mask: Array, a: Data, b: Data) -> Data:
        """See `Physics.where`."""
        if hasattr(b, "where"):  # MJX's own, which knows what of MJX-Warp is one for all robots
            return b.where(mask, a)
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)

    def take(self, data: Data, index: Array) -> Data:
        """See `Physics.take`."""
        if hasattr(data, "where"):  # MJX's own, as above
            return data[index]
        return jax.tree.map(lambda x: x[index], data)


@struct.dataclass
class BraxEnv:
    """An environment of Brax or Playground behind our protocol. Build it with `from_brax`."""

    env: Any = struct.field(pytree_node=False)
    physics: BraxPhysics = struct.field(pytree_node=False)
    spec: EnvSpec = struct.field(pytree_node=False)

    def reset(self, key: Array, dynamics: Dynamics) -> tuple[EnvState, TimeStep]:
        """See `Env.reset`. `dynamics` is empty: the environment keeps its model to itself."""
        if dynamics:
            raise ValueError(
                f"a Brax environment keeps its model to itself, so {', '.join(sorted(dynamics))} cannot be replaced: "
                "randomize inside it, and draw no dynamics here"
            )
        state = self.env.reset(_legacy_key(key))
        return state, restart(_observation(state.obs), _floats(state.metrics))

    def step(self, state: EnvState, action: Array, applied: Array | None = None) -> tuple[EnvState, TimeStep]:
        """See `Env.step`. `applied` must be None: the environment holds one action for all substeps."""
        if applied is not None:
            raise ValueError(
                "a Brax environment takes one action for a whole control period, so wrappers that change it between "
                "substeps, such as ActionDelay, cannot be put around it"
            )
        state = jax.tree.map(lambda leaf: leaf, state)  # new dictionaries, because many environments write into theirs
        state = self.env.step(state, actuator_targets(self.spec.action, action))
        cut_off = state.info.get("time_out", jnp.zeros(())) > 0
        return state, TimeStep(
            obs=_observation(state.obs),
            reward=jnp.asarray(state.reward, jnp.float32),
            terminated=(state.done > 0) & ~cut_off,
            truncated=(state.done > 0) & cut_off,
            metrics=_floats(state.metrics),
        )

    def hold(self, state: EnvState) -> Array:
        """See `Env.hold`: zeros, for what the environment's actuators were told is known to itself alone."""
        return jnp.zeros(self.spec.action.size)

    def data(self, state: EnvState) -> Data:
        """See `Env.data`: MJX's data, or at least `qpos` and `qvel`."""
        data = getattr(state, _data_field(state))
        return data if data is None or hasattr(data, "qpos") else BraxData(data)

    def replace_data(self, state: EnvState, data: Data) -> EnvState:
        """See `Env.replace_data`."""
        return state.replace(**{_data_field(state): data.inner if isinstance(data, BraxData) else data})


def from_brax(env: Any, control_dt: float | None = None, episode_seconds: float | None = None) -> Env:
    """An environment of Brax or MuJoCo Playground as one of ours, for `vectorize` and our learners.

    Its tables say what can be known: one term for each observation vector, and actions that are cut to [-1, 1], the
    range both libraries write their environments for. `"privileged_state"` becomes `"privileged"`.

    Args:
      env: without the wrappers for training: batches, time limits and resets are the business of `vectorize`.
      control_dt: seconds between actions; the environment's own `dt` by default.
      episode_seconds: time limit; 1000 actions by default, as is usual there.

    Raises:
      ValueError: the environment is wrapped for training, has observations of other names, or no `dt`.
    """
    _require_bare(env)
    if control_dt is None:
        try:
            control_dt = float(env.dt)
        except AttributeError:
            raise ValueError(f"{type(env).__name__} does not say how long an action lasts: pass control_dt") from None
    obs = _observation(jax.eval_shape(env.reset, _legacy_key(jax.random.key(0))).obs)
    model = _model(env)
    spec = EnvSpec(
        observation=(Term("state", obs["state"].shape[-1], unit="1"),),
        privileged=(Term("privileged", obs["privileged"].shape[-1], unit="1"),) if "privileged" in obs else (),
        action=_unit_actions(env.action_size, model),
        control_dt=control_dt,
        episode_seconds=1000 * control_dt if episode_seconds is None else episode_seconds,
    )
    return BraxEnv(env, BraxPhysics(model, max(1, round(control_dt / model.opt.timestep))), spec)


def to_gymnasium(env: Env, dynamics: DynamicsSampler = _NOMINAL, observation: ObservationForm = "state") -> Any:
    """One robot as a `gymnasium.Env`; build the task with the backend `cpu`, which steps a single robot fastest.

    The action space ends where a larger action would meet the limits of the targets. An episode is truncated after the
    task's `episode_seconds`, and where the state is not finite or faster than physics. `info` holds the metrics, but
    for those that have nothing to measure in a step. All keys come from the seed of `reset`, so that equal seeds give
    equal episodes.

    Args:
      env: a task, wrapped or not.
      dynamics: draws the robot of each episode.
      observation: see `ObservationForm`.

    Raises:
      ValueError: Gymnasium is not installed.
    """
    gymnasium = _import("gymnasium", "to_gymnasium", "gymnasium", "gymnasium")
    spec = env.spec
    episode_steps = max(1, round(spec.episode_seconds / spec.control_dt))
    default, scale, lower, upper = (
        np.asarray(values, np.float32)
        for values in (spec.action.default, spec.action.scale, spec.action.lower, spec.action.upper)
    )

    @jax.jit
    def reset(key: Array) -> tuple[EnvState, Any]:
        key_dynamics, key_reset = jax.random.split(key)
        state, timestep = env.reset(key_reset, dynamics(key_dynamics).dynamics)
        return state, _arrange(timestep.obs, observation)

    @jax.jit
    def step(state: EnvState, action: Array) -> tuple[EnvState, Any, TimeStep, Array]:
        after, timestep = env.step(state, action)
        return after, _arrange(timestep.obs, observation), timestep, sound(env, state, after, timestep)

    def box(value: Any) -> Any:
        return gymnasium.spaces.Box(-np.inf, np.inf, value.shape, np.float32)

    GymnasiumEnv: Any = gymnasium.Env

    class GymnasiumTask(GymnasiumEnv):
        """One of our tasks behind Gymnasium's protocol."""

        def __init__(self) -> None:
            _, example = jax.eval_shape(reset, jax.random.key(0))
            boxes = jax.tree.map(box, example)
            self.observation_space = gymnasium.spaces.Dict(boxes) if isinstance(boxes, dict) else boxes
            self.action_space = gymnasium.spaces.Box((lower - default) / scale, (upper - default) / scale)
            self._state: Any = None
            self._obs: Any = None
            self._steps = 0

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            """Starts an episode; there are no `options`."""
            super().reset(seed=seed, options=options)
            self._state, obs = reset(jax.random.key(int(self.np_random.integers(2**31))))
            self._obs, self._steps = jax.tree.map(np.asarray, obs), 0
            return self._obs, {}

        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
            """Advances one control period."""
            if self._state is None:
                raise ValueError("call reset before step")
            self._state, obs, timestep, finite = step(self._state, np.asarray(action, np.float32))
            self._steps += 1
            metrics = {name: float(value) for name, value in timestep.metrics.items()}
            info = {name: value for name, value in metrics.items() if not math.isnan(value)}
            if not finite:
                return self._obs, 0.0, False, True, info
            self._obs = jax.tree.map(np.asarray, obs)
            terminated = bool(timestep.terminated)
            truncated = (bool(timestep.truncated) or self._steps >= episode_steps) and not terminated
            return self._obs, float(timestep.reward), terminated, truncated, info

    return GymnasiumTask()


_TRAINING_WRAPPERS = {
    "VmapWrapper",
    "DomainRandomizationVmapWrapper",
    "EpisodeWrapper",
    "AutoResetWrapper",
    "EvalWrapper",
    "BraxDomainRandomizationVmapWrapper",  # the last three are Playground's
    "BraxAutoResetWrapper",
    "MadronaWrapper",
}


def _import(module: str, function: str, library: str, package: str) -> Any:  # the module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{function} needs {library}, which cannot be imported ({error}): pip install {package}"
        ) from None


def _arrange(obs: Observation, form: ObservationForm) -> Array | dict[str, Array]:
    if form not in get_args(ObservationForm):
        raise ValueError(f"observation is {form!r}, it must be one of {', '.join(get_args(ObservationForm))}")
    if form == "state":
        return obs["state"]
    if "privileged" not in obs:
        return {"state": obs["state"]}
    return {"state": obs["state"], "privileged_state": jnp.concatenate([obs["state"], obs["privileged"]])}


def _observation(obs: Any) -> Observation:
    """Brax's observation, a vector or a dictionary, under our names."""
    if not isinstance(obs, Mapping):
        return {"state": obs}
    names = {"state": "state", "privileged_state": "privileged"}
    if "state" not in obs or set(obs) - set(names):
        raise ValueError(
            f"the environment observes {', '.join(sorted(obs))}; only state and privileged_state are understood here"
        )
    return {names[name]: value for name, value in obs.items()}


def _without_nan(metrics: dict[str, Array]) -> dict[str, Array]:
    return {name: jnp.where(jnp.isnan(value), 0.0, value) for name, value in metrics.items()}


def _floats(metrics: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def _legacy_key(key: Array) -> Array:  # key [] or uint32 [2] -> uint32 [2]
    """The kind of key that Brax passes around."""
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key


def _data_field(state: Any) -> str:
    """The field in which a state keeps its physics: Brax calls it `pipeline_state`, Playground `data`."""
    return "pipeline_state" if hasattr(state, "pipeline_state") else "data"


def _require_bare(env: Any) -> None:
    inner = env
    while inner is not None:
        if type(inner).__name__ in _TRAINING_WRAPPERS:
            raise ValueError(
                f"the environment is wrapped for training ({type(inner).__name__}): pass the one inside, because "
                "`vectorize` makes batches, time limits and resets"
            )
        inner = vars(inner).get("env")


def _model(env: Any) -> mujoco.MjModel:
    for owner in (env, getattr(env, "sys", None)):
        if isinstance(model := getattr(owner, "mj_model", None), mujoco.MjModel):
            return model
    return mujoco.MjModel.from_xml_string("<mujoco/>")


def _unit_actions(size: int, model: mujoco.MjModel) -> ActionTable:
    named = model.nu == size
    names = tuple((model.actuator(i).name if named else "") or f"action_{i}" for i in range(size))
    return ActionTable(names, default=(0.0,) * size, scale=(1.0,) * size, lower=(-1.0,) * size, upper=(1.0,) * size)
