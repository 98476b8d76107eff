"""An exported policy, ready to be stepped. Axes: B batch, D observation, A action, H horizon if above 1."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mjx_policies.deploy.contract import Contract, ContractError, allowance
from mjx_policies.deploy.validation import Model, read_model
from mjx_policies.text import show, show_all

if TYPE_CHECKING:
    import onnxruntime

FLOAT32 = np.dtype(np.float32)
LARGEST = float(np.finfo(FLOAT32).max)
CPU = ["CPUExecutionProvider"]
LOADING_MEMORY = 2**29  # bytes beyond what the process has, for a file whose size may not pass 64 MiB
LOADING_SECONDS = 10.0  # of computing, for making a session of a file and trying its examples
TIMED_STEPS = 3  # after which a policy that was never quick enough is refused

State = tuple[np.ndarray, ...]
"""What the policy carries: an array for each of the contract's states, in their order, [*shape] or [B, *shape]."""


class PolicyError(RuntimeError):
    """A policy cannot be loaded or stepped; the message says why."""


class PolicyOutput(NamedTuple):
    """The output of a policy; a tuple, which is quicker to make than a frozen dataclass.

    Attributes:
      action: [A], or [H, A] if the policy plans ahead; [B, ...] for a batch. What it may want to see again.
      target: like `action`; what the robot is sent.
      state: for the next step.
    """

    action: np.ndarray
    target: np.ndarray
    state: State


def load_policy(
    path: str | os.PathLike[str], robot_name: str | None = None, joint_names: Sequence[str] | None = None
) -> ExportedPolicy:
    """Reads a policy from a file that anybody may have written, and checks it on the examples inside.

    Args:
      path: of the ONNX file.
      robot_name: refuses policies for other robots; such as `go2`.
      joint_names: refuses policies for robots with other joints; in any order.

    Raises:
      ContractError: the file is refused, or is for another robot.
      PolicyError: it does not run, or does not answer as its own examples say.
    """
    model = read_model(path)
    try:
        check_robot(model.contract, robot_name, joint_names)
        return ExportedPolicy(model)
    except (ContractError, PolicyError) as error:
        raise type(error)(f"{Path(path)}: {error}") from error.__cause__


def check_robot(contract: Contract, robot_name: str | None, joint_names: Sequence[str] | None) -> None:
    """Checks that a policy is for this robot; None is not checked.

    Raises:
      ContractError: it is not.
    """
    if robot_name is not None and robot_name != contract.robot.name:
        raise ContractError(
            f"the policy is for the robot {show(contract.robot.name)}, this is {show(robot_name)}. "
            "Choose a policy that was trained on it."
        )
    if joint_names is None:
        return
    if len(set(joint_names)) != len(joint_names):
        raise ContractError("the robot has two joints of the same name. Correct its joint names.")
    missing, unknown = set(contract.joint_names) - set(joint_names), set(joint_names) - set(contract.joint_names)
    faults = [f"the robot lacks the joints {show_all(missing)}"] * bool(missing)
    faults += [f"the policy does not know the joints {show_all(unknown)}"] * bool(unknown)
    if faults:
        raise ContractError(f"{' and '.join(faults)}. Choose a policy that was trained on this robot.")


class ExportedPolicy:
    """A policy that answered its own examples correctly.

    A step for one robot goes through arrays that are reused, so a policy must not be stepped by two threads at a time.

    Attributes:
      contract: what it needs and promises.

    Args:
      model: a file that was found to be in order.

    Raises:
      ContractError, PolicyError: see `load_policy`.
    """

    def __init__(self, model: Model):
        self.contract = model.contract
        self._inputs = ["observation", *(state.input for state in self.contract.state)]
        self._inputs += [noise.input for noise in self.contract.noise]
        self._outputs = ["action", "target", *(state.output for state in self.contract.state)]
        self._shapes = [model.inputs[name] for name in self._inputs]
        self._output_shapes = [model.outputs[name] for name in self._outputs]
        self._num_states = len(self.contract.state)
        self._resets = [state.reset for state in self.contract.state]
        self._still = [noise.deterministic for noise in self.contract.noise]
        self._run_options: tuple[onnxruntime.RunOptions, ...] = ()
        if any(abs(value) > LARGEST for value in self._resets + self._still):
            raise ContractError("the contract has a state or noise that float32 cannot hold. Export the policy again.")
        _check_runtime()
        examples = _examples("input", self.contract.golden.inputs, self._inputs, self._shapes)
        expected = _examples("output", self.contract.golden.outputs, self._outputs, self._output_shapes)
        with _bounded_time() as (options, run_options), _bounded_memory():
            with _as_policy_error("onnxruntime refuses the policy"):
                self._session = _session(model.data, options)
                self._bind_one()
            self._run_options = (run_options,)
            self._check_examples(examples, expected)
        self._run_options = ()

    def initial_state(self, batch: int | None = None) -> State:
        """The state before the first step, of one robot or of B of them."""
        lead = () if batch is None else (batch,)
        shapes = self._shapes[1 : 1 + self._num_states]
        return tuple(np.full(lead + s, reset, FLOAT32) for s, reset in zip(shapes, self._resets, strict=True))

    def step(self, observation: np.ndarray, state: State, noise: Sequence[np.ndarray] | None = None) -> PolicyOutput:
        """Runs one control period.

        Args:
          observation: [D] or [B, D] float32.
          state: of the last step, or `initial_state`.
          noise: an array [*shape] or [B, *shape] float32 for each of the contract's noises, in their order; without it
            the contract's deterministic values.

        Raises:
          PolicyError: an argument has the wrong type or shape, or onnxruntime failed. NaN is no error: it goes in and
            comes out.
        """
        single = getattr(observation, "ndim", 1) == 1
        lead = () if single else observation.shape[:1]
        if type(state) is not tuple or len(state) != self._num_states:
            raise PolicyError(f"the state must be a tuple of {self._num_states} arrays: pass that of the last step")
        if noise is None:
            given: tuple[np.ndarray, ...] = (observation, *state)
        else:
            if not isinstance(noise, tuple | list) or len(noise) != len(self._still):
                raise PolicyError(f"the noise must be a tuple of {len(self._still)} arrays, or None")
            given = (observation, *state, *noise)
        for i, array in enumerate(given):
            if type(array) is not np.ndarray or array.dtype != FLOAT32 or array.shape != lead + self._shapes[i]:
                raise PolicyError(self._complaint(i, array, lead))
        return self._step_one(given) if single else self._step_batch(given, lead)

    def _step_one(self, given: tuple[np.ndarray, ...]) -> PolicyOutput:
        for own, array in zip(self._own_inputs, given, strict=False):
            own[...] = array
        if len(given) < len(self._inputs):
            for own, value in zip(self._own_inputs[len(given) :], self._still, strict=True):
                own[...] = value
        try:
            self._session.run_with_iobinding(self._binding, *self._run_options)
        except Exception as error:  # its errors have no common base
            raise PolicyError(f"onnxruntime failed: {_one_line(error)}") from error
        action, target, *state = self._own_outputs
        return PolicyOutput(action.copy(), target.copy(), tuple(array.copy() for array in state))

    def _step_batch(self, given: tuple[np.ndarray, ...], lead: tuple[int, ...]) -> PolicyOutput:
        if len(given) < len(self._inputs):
            shapes = self._shapes[len(given) :]
            given += tuple(np.full(lead + s, value, FLOAT32) for s, value in zip(shapes, self._still, strict=True))
        feed = dict(zip(self._inputs, given, strict=True))
        try:
            found = self._session.run(self._outputs, feed, *self._run_options)
        except Exception as error:  # see above
            raise PolicyError(f"onnxruntime failed: {_one_line(error)}") from error
        for name, array, shape in zip(self._outputs, found, self._output_shapes, strict=True):
            if array.shape != lead + shape:
                raise PolicyError(
                    f"the output {show(name)} has the shape {array.shape}, not {lead + shape}: export the policy again"
                )
        return PolicyOutput(found[0], found[1], tuple(found[2:]))

    def _complaint(self, i: int, array: object, lead: tuple[int, ...]) -> str:
        expected: list[tuple[object, ...]] = [lead + self._shapes[i]]
        if i == 0:
            expected = [self._shapes[0], ("B", *self._shapes[0])]
        shapes = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in expected)
        found = type(array).__name__
        if isinstance(array, np.ndarray):
            found = f"{array.dtype} [{', '.join(map(str, array.shape))}]"
        return f"the input {show(self._inputs[i])} must be a numpy array float32 {shapes}, not {found}"

    def _bind_one(self) -> None:
        """Arrays [1, ...] that onnxruntime reads and writes itself, which saves the making of objects in each step."""
        inputs = [np.zeros((1, *shape), FLOAT32) for shape in self._shapes]
        outputs = [np.zeros((1, *shape), FLOAT32) for shape in self._output_shapes]
        self._binding = self._session.io_binding()
        for name, array in zip(self._inputs, inputs, strict=True):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in zip(self._outputs, outputs, strict=True):
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        # Views, which keep the arrays alive.
        self._own_inputs = [a.reshape(shape) for a, shape in zip(inputs, self._shapes, strict=True)]
        self._own_outputs = [a.reshape(shape) for a, shape in zip(outputs, self._output_shapes, strict=True)]

    def _check_examples(self, inputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
        """Checks that the policy answers as in its contract, one by one and all at once, and in time."""
        golden, timing = self.contract.golden, self.contract.timing
        tolerances = [allowance(golden.tolerance, float(np.abs(array).max())) for array in expected]

        def compare(step: PolicyOutput, rows: slice) -> None:
            for name, array, wanted, tolerance in zip(
                self._outputs, (step.action, step.target, *step.state), expected, tolerances, strict=True
            ):
                difference = np.abs(array - wanted[rows]).max()
                if not difference <= tolerance:  # NaN never passes
                    raise PolicyError(
                        f"the output {show(name)} of example {rows.start} is off by {difference:.3g}, more than the "
                        f"{tolerance:.3g} allowed. Export the policy again, or use another version of onnxruntime."
                    )

        def run(inputs: list[np.ndarray]) -> PolicyOutput:
            last = 1 + self._num_states
            return self.step(inputs[0], tuple(inputs[1:last]), inputs[last:])

        examples, quickest = len(inputs[0]), np.inf
        lasts = timing.control_dt * self.contract.action.horizon  # s, as long as the actions of one step do
        for row in range(examples):
            start = time.thread_time()  # of computing: a busy computer does not change it
            step = run([array[row, ...] for array in inputs])  # an array even where a number is all there is
            quickest = min(quickest, time.thread_time() - start)
            if row + 1 >= min(TIMED_STEPS, examples) and quickest > lasts:
                raise PolicyError(
                    f"a step takes {1e3 * quickest:.1f} ms of computing here and its actions last {1e3 * lasts:.1f} "
                    "ms, so it cannot keep its own clock. Use a faster computer or export a smaller network."
                )
            compare(
                PolicyOutput(step.action[None], step.target[None], tuple(a[None] for a in step.state)),
                slice(row, row + 1),
            )
        compare(run(inputs), slice(0, examples))


def _check_runtime() -> None:
    """Checks that onnxruntime is installed. It is imported only here, so that what runs no policy needs none."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        if error.name != "onnxruntime":
            raise  # it is there, but broken
        raise PolicyError(
            "running a policy needs onnxruntime, which is missing: pip install 'mjx-policies[deploy]', "
            "in a clone '.[deploy]'."
        ) from None


def _session(data: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session for bytes that `validation.read_model` found to be in order."""
    import onnxruntime

    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 2  # warnings and worse
    # Else bytes that are an ONNX file, and were checked as such, would also be read as onnxruntime's own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # The export has done it, and what runs while a session is made cannot be interrupted.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "ConstantFolding")
    session = onnxruntime.InferenceSession(data, options, providers=CPU)
    session.disable_fallback()  # an error must come out, not a second run
    return session


def _examples(
    kind: str, golden: Mapping[str, Sequence[Sequence[float]]], names: list[str], shapes: list[tuple[int, ...]]
) -> list[np.ndarray]:
    """Golden values [G, *shape] float32, in the order of `names`."""
    if golden.keys() != set(names):
        raise ContractError(
            f"contract.golden has the {kind}s {show_all(golden)} in the place of {show_all(names)}. "
            "Export the policy again."
        )
    found = []
    for name, shape in zip(names, shapes, strict=True):
        if any(len(row) != np.prod(shape, dtype=int) for row in golden[name]):
            raise ContractError(
                f"contract.golden: {show(name)} is not of shape {list(shape)}. Export the policy again."
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused just below
            array = np.array(golden[name], np.float64).astype(FLOAT32).reshape(-1, *shape)
        if not np.isfinite(array).all():
            raise ContractError(f"contract.golden: {show(name)} does not fit into float32. Export the policy again.")
        found.append(array)
    return found


@contextlib.contextmanager
def _as_policy_error(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's errors have no common base
        raise PolicyError(f"{what}: {_one_line(error)}") from error


def _one_line(error: Exception, longest: int = 400) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


@contextlib.contextmanager
def _bounded_time() -> Iterator[tuple[onnxruntime.SessionOptions, onnxruntime.RunOptions]]:
    """Options with which to make a session and run it. They make onnxruntime give up after `LOADING_SECONDS`.

    That is, after the operator at hand. A small graph can ask for any amount of work. Computing is counted, not
    waiting, so that a policy that is loaded on a busy computer is not refused for that.

    Raises:
      PolicyError: it was given up.
    """
    import onnxruntime

    options, run_options = onnxruntime.SessionOptions(), onnxruntime.RunOptions()
    seconds = _thread_clock()
    end, done, late = seconds() + LOADING_SECONDS, threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            if seconds() > end:
                late.set()
                run_options.terminate = True
                if hasattr(options, "set_load_cancellation_flag"):  # not in the oldest onnxruntime allowed
                    options.set_load_cancellation_flag(True)
                return

    watcher = threading.Thread(target=watch, name="policy loading", daemon=True)
    watcher.start()
    try:
        yield options, run_options
    except PolicyError as error:
        if late.is_set():
            raise PolicyError(
                f"loading was given up after {LOADING_SECONDS:g} s of computing: the network takes far too long for a "
                "robot. Export a smaller one."
            ) from error
        raise
    finally:
        done.set()
        watcher.join()


def _thread_clock() -> Callable[[], float]:
    """The seconds that the calling thread has computed, for any thread to ask; plain time where nobody counts that."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Makes allocations fail that would exhaust the computer, of the whole process, while a foreign graph is checked.

    A small graph can ask for any amount of memory, and the kernel would rather kill the process than refuse it.
    """
    statistics = Path("/proc/self/statm")
    if not statistics.exists():  # not Linux; no such robot
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(statistics.read_text().split()[0]) * resource.getpagesize() + LOADING_MEMORY
    allowed = [limit for limit in (size, *before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
