"""Compression of demonstrations by FAST's tokens, by control rate: python experiments/benchmarks/fast_tokens.py

Actions are sampled at each rate, the middle 98 % of them normalised to [-1, 1], and every second is encoded in
tokens that were fitted to the other half of the episodes: tokens per chunk, numbers per token, and how far the decoded
actions are from the encoded ones. Rates above the data's own show how little is spent on what lies between two actions.
Pertsch et al. 2025 (arXiv:2501.09747), table I, report 1.75 numbers for a token at 5 Hz (BridgeV2), 3.6 at 15 Hz
(DROID), 5.0 at 20 Hz (bussing) and 13.2 at 50 Hz (folding shirts).
The scripted expert of FrankaPickCube demonstrates, or take a dataset of your own with --data.
Axes: N chunks, H = rate actions of a second, A action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from measuring import report_file, write_report
from rich.progress import track
from rich.table import Table

from mjx_policies.compiler import compiler_options
from mjx_policies.data.alignment import align
from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import read
from mjx_policies.data.statistics import Accumulator, quantiles
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder, to_episodes
from mjx_policies.heads.fast.tokens import fit_tokenizer
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors


@dataclasses.dataclass(frozen=True)
class FastTokens:
    """Measures how FAST's tokens compress demonstrations."""

    data: str = ""  # dataset; empty: the scripted expert demonstrates
    task: str = "FrankaPickCube"  # task of the expert
    episodes: int = 100  # maximum number of episodes
    rates: tuple[int, ...] = (5, 10, 15, 20, 50)  # control rates (Hz); actions in between are interpolated
    vocabulary: int = 1024  # number of tokens, the paper's
    scale: float = 10.0  # scale of coefficients before rounding, the paper's
    json: str = ""  # JSON file for the results
    overwrite: bool = False  # replace the file that --json names

    def __post_init__(self) -> None:
        if self.episodes < 2 or not self.rates or min(self.rates) < 2:
            raise ValueError("episodes must be at least 2, and rates must hold numbers of at least 2 Hz")


def main(bench: FastTokens) -> None:
    console, report = open_console(), report_file(bench)
    with console.status("demonstrations"), clean_errors(ValueError):
        episodes = demonstrations(bench)
    rows = {}
    for rate in track(bench.rates, "fitting tokens", console=console, transient=True):
        with clean_errors(ValueError):
            rows[rate] = measure(chunks(episodes, rate), bench)
    numbers = episodes[0].action.shape[1]
    table = Table(title=f"{len(episodes)} episodes, a second of {numbers} actions at a time", title_justify="left")
    for title in ("rate (Hz)", "numbers", "tokens", "numbers a token", "error, mean", "error, 99 %"):
        table.add_column(title, justify="right")
    for rate, row in rows.items():
        table.add_row(
            f"{rate}",
            f"{row['numbers']}",
            f"{row['tokens']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['error_mean']:.3f}",
            f"{row['error_p99']:.3f}",
        )
    console.print(table)
    console.print("Errors are in units of half the range of each action's middle 98 %.")
    write_report(report, bench, {"by_rate": {f"{rate}": row for rate, row in rows.items()}})


def demonstrations(bench: FastTokens) -> list[Episode]:
    """The demonstrations that were asked for.

    Raises:
      UserError: there are fewer than two, or they do not last.
    """
    if bench.data:
        dataset = read(bench.data)
        found = [dataset[number] for number in range(min(bench.episodes, len(dataset)))]
    else:
        task = load(bench.task, num_envs=bench.episodes)
        expert = load_expert(bench.task, task)
        seeds = np.arange(bench.episodes, dtype=np.uint32)
        rollouts = make_recorder(task, expert_demonstrator(expert))(seeds)
        found = to_episodes(rollouts, bench.task)
    found = [episode for episode in found if len(episode.action) > 1.5 * episode.fps + 1]
    if len(found) < 2:
        raise UserError(f"{bench.data or bench.task} has fewer than two episodes that last 1.5 s: take more or others.")
    return found


def chunks(episodes: Sequence[Episode], rate: int) -> list[np.ndarray]:  # -> [N, H, A] of each episode, H = rate
    """Chunks of a second, one from each quarter of a second on."""
    found = []
    for episode in episodes:
        times = np.arange(len(episode.action)) / episode.fps
        starts = np.arange(0.0, times[-1] - 1, 0.25)
        clock = np.arange(rate) / rate
        action = np.asarray(episode.action, np.float64)
        found.append(np.stack([align(times, action, start + clock, "linear", 2 / episode.fps)[0] for start in starts]))
    return found


def measure(found: Sequence[np.ndarray], bench: FastTokens) -> dict[str, float]:
    """The figures of one control rate: tokens fitted to the even episodes, on the odd ones."""
    fitted, held = np.concatenate(found[::2]), np.concatenate(found[1::2])
    statistics = Accumulator()
    statistics.add(fitted.reshape(-1, fitted.shape[-1]))
    scale = quantiles(statistics.result())
    fitted, held = (np.asarray(scale.apply(x), np.float32) for x in (fitted, held))
    tokenizer = fit_tokenizer(fitted, bench.vocabulary, bench.scale)

    def there_and_back(action):
        tokens, count = tokenizer.encode(action)
        return count, *tokenizer.decode(tokens)

    count, back, valid = jax.jit(jax.vmap(there_and_back), compiler_options=compiler_options())(held)
    if not valid.all():
        raise UserError("tokens of a demonstration do not decode: this is a fault of heads/fast/tokens.py, report it.")
    error = np.abs(back - held)
    tokens = float(np.mean(count))
    return {
        "numbers": tokenizer.numbers,
        "tokens": tokens,
        "ratio": tokenizer.numbers / tokens,
        "error_mean": float(error.mean()),
        "error_p99": float(np.quantile(error, 0.99)),
    }


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(FastTokens, __doc__))
