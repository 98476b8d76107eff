"""Checks of a run: its curves and its last parameters. Axes: R rows of the table.

Columns are read by name, whatever learner wrote them; a check whose columns are missing says nothing. A loss that falls
below zero is a likelihood, whose zero means nothing: of such a one only differences count, of all others ratios.
"""

from __future__ import annotations

import numpy as np

from mjx_policies.diagnosis.base import CheckResult, learns, listed
from mjx_policies.diagnosis.runs import Run

MIN_ROWS = 8
RISEN = 3.0  # times its lowest, of a loss that should fall
WILD = 0.5  # standard deviation of the logarithm of a loss from row to row: factors of 1.6
SPIKE = 10.0  # times what is usual then
SPIKES = 0.02  # portion of the rows
BURST = 30.0  # times the usual gradient, of a loss that then stands still
NORM_GROWTH = 30.0  # times the weights that keep a signal's size: root mean square times the root of the inputs
FALLEN = 0.95  # of its first value, that a loss must get below to have learned anything
KL = 0.2  # nats by which an update may change a policy; 0.01 to 0.05 is usual
CLIPPED = 0.65  # portion of the samples that PPO clips; 0.1 to 0.3 is usual
DIVERGED = 1e-3  # portion of the steps in which a simulation diverges
NARROW = 0.1  # of its first standard deviation
REGAINED = 0.5  # of its fall, that a likelihood loses again
OVERFITTED = 1.5  # times its lowest, of a validation loss
NOTABLE = 0.1  # of its first value, below which a validation loss may do what it likes
CLEAR = 3.0  # standard errors
SELDOM = 0.05  # portion of the episodes that a policy without any skill may solve by luck


def rate_too_high(run: Run) -> CheckResult | None:
    """Steps that undo each other: a loss that rises or leaps, an unstable policy."""
    kl, clipped = run.curve("policy/kl"), run.curve("policy/clip_fraction")
    if len(kl) >= MIN_ROWS:
        moved, cut = float(np.median(late(kl))), float(np.median(late(clipped))) if len(clipped) else 0.0
        evidence = (
            f"in the second half an update moves the policy by {moved:.3g} nats and clips {cut:.0%} of the samples"
        )
        if moved <= KL and cut <= CLIPPED:
            return CheckResult(evidence)
        where: tuple[str, ...] = ("policy/kl", "policy/clip_fraction")
        step = run.step("policy/kl", int(np.argmax(kl > KL))) if (kl > KL).any() else None
    else:
        name, loss = supervised_loss(run)
        if len(loss) < MIN_ROWS:
            return None
        smooth = running_median(loss)
        lowest = int(smooth.argmin())
        wild = roughness(late(loss))
        leaps = float(np.mean(loss > SPIKE * smooth))
        evidence = (
            f"the loss goes from {loss[0]:.3g} to {smooth[-1]:.3g}, with a lowest of {smooth[lowest]:.3g} and a "
            f"highest of {loss.max():.3g}"
        )
        gradient, growth = run.curve("gradient/norm"), norm_growth(run)
        burst = float(gradient.max() / max(np.median(gradient), 1e-30)) if len(gradient) else 1.0
        if loss.min() < 0:
            fall, noise = float(loss[0] - smooth[lowest]), CLEAR * jitter(loss)
            rises = smooth[-1] - smooth[lowest] > max(REGAINED * fall, noise)
            explodes = loss.max() - loss[0] > max(RISEN * fall, noise)
            leaping = False
            stalls = smooth[len(smooth) // 5] - smooth[-1] < max(0.1 * fall, noise) and burst > BURST
        else:
            evidence += f"; from row to row it changes by a factor of {np.exp(wild):.2f}"
            clear = smooth[-1] - smooth[lowest] > CLEAR * jitter(loss)  # ratios near zero are nothing but noise
            rises = smooth[-1] > RISEN * smooth[lowest] and smooth[lowest:].max() > 0.05 * loss[0] and clear
            explodes = loss.max() > RISEN * loss[0]
            leaping = smooth[-1] > 0.02 * loss[0] and (wild > WILD or leaps > SPIKES)
            stalls = smooth[len(smooth) // 5] < 1.5 * smooth[-1] and burst > BURST
        if burst > BURST:
            evidence += f"; the largest gradient is {burst:.3g} times the usual one"
        if growth > NORM_GROWTH:
            evidence += f"; weights are {growth:.3g} times as large as those that keep a signal's size"
        if not (rises or explodes or leaping or stalls or growth > NORM_GROWTH):
            return CheckResult(evidence)
        where, turn = (name, "gradient/norm"), lowest if rises and not (explodes or leaping) else int(loss.argmax())
        step = run.step(name, turn) if rises or explodes or leaping else None
        if step is None and stalls:
            step = run.step("gradient/norm", gradient.argmax())
        if step is None and growth > NORM_GROWTH:  # by the end, where the checkpoint is
            step = run.step(name, len(loss) - 1)
    rate = run.curve("learning_rate")
    current = rate.max() if len(rate) else run.hyper.get("learning_rate")
    now = f"the learning rate {current:.3g}" if current else "the learning rate"
    then = f"Start again with {current / 10:.1g}" if current else "Start again with a tenth of it"
    nan = "; then numbers stop being finite" if run.not_finite or run.stopped_by else ""
    return CheckResult(
        evidence + nan,
        f"{now} is too high: steps overshoot what they aim at.",
        f"{then}, all else alike, and compare the first hundred updates.",
        where=tuple(name for name in where if len(run.curve(name))),
        step=step,
    )


def not_finite(run: Run) -> CheckResult | None:
    """Losses, gradients, parameters or simulations that are not finite."""
    weights = [
        f"{leaf} at step {step}"
        for step, params in run.params.items()
        for leaf, array in params.items()
        if not np.isfinite(array).all()
    ]
    resets = run.curve("env/nan_resets")
    diverged = float(resets.mean()) if len(resets) else 0.0
    if run.not_finite or run.stopped_by or weights:
        first = min(run.not_finite, key=lambda name: run.not_finite[name]) if run.not_finite else ""
        said = [f"{first} from step {run.not_finite[first]} on"] if first else []
        said += [*run.stopped_by, *weights]
        return CheckResult(
            f"not finite: {listed(said)}",
            f"NaN or infinity: {said[0]}.",
            "Resume from the last checkpoint with jax_debug_nans on, to see which operation makes the first one, and "
            "if none stands out start again with a tenth of the learning rate.",
            where=tuple(run.not_finite),
            step=run.not_finite.get(first),
        )
    if diverged > DIVERGED:
        return CheckResult(
            f"the simulation diverges in {diverged:.2%} of the steps",
            "NaN or infinity: the simulation diverges and episodes are discarded.",
            "Halve the physics step, narrow the randomization of masses and gains, and see whether nan_resets ends.",
            where=("env/nan_resets",),
            step=run.step("env/nan_resets", int(np.argmax(resets > 0))),
        )
    simulated = f", and the simulation diverges in {diverged:.2%} of the steps" if len(resets) else ""
    return CheckResult(f"everything is finite{simulated}")


def dead_gradient(run: Run) -> CheckResult | None:
    """Parameters that do not move, and gradients that are zero."""
    norms = [name for name in run.curves if name.startswith("gradient/") and len(run.curve(name)) >= MIN_ROWS]
    zero = [name for name in norms if not np.any(late(run.curve(name)))]
    moved: dict[str, float] = {}
    if len(run.params) == 2:
        before, after = run.params.values()
        moved = {
            name: float(np.linalg.norm(after[name] - old) / max(float(np.linalg.norm(old)), 1e-12))
            for name, old in before.items()
            if learns(name) and name in after and np.shape(after[name]) == np.shape(old)
        }
    still = [name for name, change in moved.items() if change == 0] if any(moved.values()) else []
    if not moved and not norms:
        return None
    if not zero and not still:
        if not moved:
            return CheckResult("the norms of gradients are above zero; there are no two checkpoints to compare")
        return CheckResult(
            f"{len(moved)} parameter arrays moved between the last two checkpoints, the least by "
            f"{min(moved.values()):.2g} of its size"
        )
    names = [*still, *zero]
    between = f"between steps {' and '.join(map(str, run.params))}" if still else "in the second half"
    return CheckResult(
        f"unchanged or zero {between}: {listed(names)}",
        f"no gradient reaches {names[0]}.",
        "If it is not frozen on purpose, check for a stop_gradient, an output nobody uses, or units that are zero for "
        "all samples, as a learning rate that is too high leaves them.",
        where=tuple(zero),
        step=min((first_zero(run, name) for name in zero), default=None),
    )


def not_learning(run: Run) -> CheckResult | None:
    """A training loss that does not fall."""
    name, loss = supervised_loss(run)
    if len(loss) < MIN_ROWS:
        return None
    smooth = running_median(loss)
    evidence = f"the training loss goes from {loss[0]:.3g} to {smooth[-1]:.3g}"
    if smooth[-1] < FALLEN * loss[0] or loss[0] <= 0:
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        "the training loss does not fall: the data hold no signal, or the gradient does not reach what should learn "
        "it.",
        "Let the same loss overfit one batch; if it can, check the data, and if not, the network.",
        where=(name,),
    )


def overfitted(run: Run) -> CheckResult | None:
    """A validation loss that rises while the training loss falls."""
    (name, loss), held_out = supervised_loss(run), run.curve("loss/validation")
    if len(loss) < MIN_ROWS or len(held_out) < 4:
        return None
    smooth = running_median(held_out, 3)
    lowest, last = float(smooth.min()), float(smooth[-1])
    evidence = f"validation loss {last:.3g}, at its lowest {lowest:.3g}; training loss {running_median(loss)[-1]:.3g}"
    train = float(running_median(loss)[-1])
    if min(lowest, train) < 0:
        gap = REGAINED * float(held_out[0] - lowest)
        healthy = last - lowest <= gap or train >= last - gap
    else:
        healthy = last <= max(OVERFITTED * lowest, NOTABLE * float(held_out[0])) or train >= last / OVERFITTED
    if healthy or last - lowest <= CLEAR * jitter(held_out):
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        "the policy memorises: the validation loss rises while the training loss falls.",
        "Take the checkpoint of the lowest validation loss, or record more episodes; more training will not help.",
        where=("loss/validation", name),
        step=run.step("loss/validation", smooth.argmin()),
    )


def collapsed(run: Run) -> CheckResult | None:
    """Exploration that ended before anything was found."""
    std = run.curve("policy/std")
    if len(std) < MIN_ROWS:
        return None
    first, last = float(std[0]), float(np.median(late(std)))
    evidence = f"the policy's standard deviation goes from {first:.3g} to {last:.3g}; {progress(run)}"
    if last > NARROW * first or improves(run):
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        "exploration has collapsed: the policy no longer explores, and does not get better.",
        "Give the entropy a weight (--hyper.entropy 0.01), or the standard deviation a higher floor.",
        where=("policy/std", score(run)[0]) if score(run)[0] else ("policy/std",),
        step=run.step("policy/std", int(np.argmax(std <= NARROW * first))),
    )


def blind_critic(run: Run) -> CheckResult | None:
    """A critic that explains nothing of the returns."""
    explained = run.curve("value/explained")
    if len(explained) < MIN_ROWS:
        return None
    usual = float(np.median(late(explained)))
    evidence = f"the critic explains {usual:.0%} of the returns' variance; {progress(run)}"
    if usual > 0.1 or improves(run):
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        "the critic has not learnt: it explains nothing of the returns.",
        "Print the reward of one episode: if it is always the same, there is nothing to learn from; if not, check "
        "its scale and the discount.",
        where=("value/explained",),
    )


def rate_at_bound(run: Run) -> CheckResult | None:
    """An adaptive learning rate that stays at one of its bounds."""
    rate = run.curve("learning_rate")
    names = ("min_learning_rate", "max_learning_rate")
    bounds = [run.hyper[name] for name in names if name in run.hyper]
    if len(rate) < MIN_ROWS or len(bounds) < 2 or not run.hyper.get("desired_kl"):
        return None
    shares = [float(np.mean(np.isclose(late(rate), bound, rtol=1e-3))) for bound in bounds]
    evidence = (
        f"in the second half the learning rate is at its lower bound in {shares[0]:.0%} and at its upper in "
        f"{shares[1]:.0%} of the rows; {progress(run)}"
    )
    if max(shares) < 0.8 or improves(run):
        return CheckResult(evidence)
    low = shares[0] >= shares[1]
    return CheckResult(
        evidence,
        f"the learning rate is stuck at its {'lower' if low else 'upper'} bound.",
        "Check the scale of observations and advantages: updates move the policy too far however small the steps are."
        if low
        else "Check the advantages: hardly anything the policy does makes a difference to its reward.",
        where=("learning_rate",),
    )


def hardly_succeeds(run: Run) -> CheckResult | None:
    """A BC policy that succeeded in hardly any episode of its evaluations."""
    success = run.curve("eval/success")
    if not len(success) or not supervised_loss(run)[0]:
        return None
    best = float(success.max())
    evidence = f"{len(success)} evaluations, success at best {best:.0%}"
    if best > SELDOM:
        return CheckResult(evidence)
    return CheckResult(
        evidence,
        "the policy hardly ever succeeds. If nothing else is wrong, it mostly errs a little and is then where no "
        "demonstration says what to do.",
        "Watch a video of it for the moment in which it leaves the demonstrations' way; then try more demonstrations, "
        "corrections of its own episodes (experiments/dagger.py), longer chunks, or a multimodal head.",
        where=("eval/success",),
        minor=True,  # whatever else is wrong may be why
    )


def supervised_loss(run: Run) -> tuple[str, np.ndarray]:
    """The loss of a run that imitates, and its name; that of reinforcement learning may well rise."""
    names = () if "policy/kl" in run.curves else ("loss/train", "loss")
    return next(((name, run.curve(name)) for name in names if len(run.curve(name))), ("", np.zeros(0)))


def first_zero(run: Run, name: str) -> int:
    """The step from which on a curve is zero."""
    nonzero = np.flatnonzero(run.curve(name))
    return int(run.steps(name)[nonzero[-1] + 1 if len(nonzero) else 0])


def norm_growth(run: Run) -> float:
    """Norm growth of the largest weight matrix, against one that keeps a signal's size; zero without a checkpoint."""
    last = list(run.params.values())[-1] if run.params else {}
    sizes = [
        float(np.sqrt(np.mean(np.square(array, dtype=np.float64)) * array.shape[0]))
        for name, array in last.items()
        if np.ndim(array) == 2 and array.size and "embed" not in name.lower()
    ]
    return max((size for size in sizes if np.isfinite(size)), default=0.0)


def late(values: np.ndarray) -> np.ndarray:
    """The second half of a curve."""
    return values[len(values) // 2 :]


def running_median(values: np.ndarray, width: int = 0) -> np.ndarray:  # [R] -> [R]
    """The median of a row and those before it; the width is a tenth of all rows by default."""
    width = min(max(width or len(values) // 10, 3), len(values))
    padded = np.concatenate([np.full(width - 1, values[0]), values])
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def roughness(values: np.ndarray) -> float:
    """Standard deviation of the logarithm from row to row, per row, by the median: a few spikes do not count."""
    change = np.abs(np.diff(np.log(np.maximum(values, 1e-30))))
    return float(np.median(change) / 0.6745 / np.sqrt(2)) if len(change) else 0.0


def jitter(values: np.ndarray) -> float:
    """Standard deviation of the noise of a curve, from the median change from row to row."""
    change = np.abs(np.diff(values))
    return float(np.median(change) / 0.6745 / np.sqrt(2)) if len(change) else 0.0


def score(run: Run) -> tuple[str, np.ndarray]:
    """Name and values of the reward that a run of reinforcement learning logs."""
    names = ("env/reward", "eval/return")
    return next(((name, run.curve(name)) for name in names if len(run.curve(name)) >= MIN_ROWS), ("", np.zeros(0)))


def improves(run: Run) -> bool:
    """Whether the reward has risen by more than chance."""
    _, reward = score(run)
    if not len(reward):
        return False
    part = max(len(reward) // 5, 2)
    first, last = reward[:part], reward[-part:]
    error = np.sqrt(first.var(ddof=1) / part + last.var(ddof=1) / part)
    return bool(last.mean() - first.mean() > CLEAR * error)


def progress(run: Run) -> str:
    """The change of the reward in words."""
    name, reward = score(run)
    if not len(reward):
        return "no reward is known"
    part = max(len(reward) // 5, 2)
    return f"{name} goes from {reward[:part].mean():.3g} to {reward[-part:].mean():.3g}"
