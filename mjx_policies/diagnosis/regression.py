"""Regression that is cross-validated over episodes: how well some numbers predict others.

Ridge regression on random Fourier features (Rahimi & Recht 2007, "Random features for large-scale kernel machines"): a
few matrix products, with no step size that could be wrong. Axes: N rows, D inputs, F features, K outputs.
"""

from __future__ import annotations

import numpy as np

WAVES = 128  # random features
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)  # of the variance of a feature; each output takes the one that predicts it best
FOLDS = 4


def standardise(values: np.ndarray) -> np.ndarray:  # [N, D] -> [N, D]
    """Zero mean, unit variance; columns that do not vary become zero, as does what is not finite."""
    finite = np.isfinite(values)
    if not finite.all():
        middle = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
        values = np.where(finite, values, middle)
    deviation = values.std(axis=0)
    varies = deviation > 1e-9 * np.maximum(np.abs(values).max(axis=0, initial=0), 1e-30)
    return (values - values.mean(axis=0)) / np.where(varies, deviation, 1.0) * varies


def waves(inputs: np.ndarray, seed: int = 0) -> np.ndarray:  # [N, D] -> [N, WAVES]
    """Cosines of the standardised inputs, half of them long and half short."""
    rng = np.random.default_rng(seed)
    frequency = rng.normal(size=(inputs.shape[1], WAVES)) / np.sqrt(max(inputs.shape[1], 1))
    frequency *= np.where(np.arange(WAVES) % 2, 0.7, 1.5)
    return np.cos(standardise(inputs) @ frequency + rng.uniform(0, 2 * np.pi, WAVES))


def assign_folds(episode: np.ndarray, seed: int = 0) -> np.ndarray:  # [N] -> [N]
    """The fold in which each row is held out: whole episodes, or stretches of time where there are few."""
    names, index = np.unique(episode, return_inverse=True)
    if len(names) >= FOLDS:
        return (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[index]
    return np.arange(len(episode)) * 2 * FOLDS // max(len(episode), 1) % FOLDS


def predict(inputs: np.ndarray, outputs: np.ndarray, fold: np.ndarray) -> np.ndarray:  # [N, F], [N, K], [N] -> [N, K]
    """Predictions of each row's outputs, by a fit to the other folds; `outputs` have a mean of about zero."""
    inputs = np.concatenate([standardise(inputs), np.ones((len(inputs), 1))], axis=1)
    parts = [fold == number for number in range(FOLDS)]
    grams = [inputs[part].T @ inputs[part] for part in parts]
    moments = [inputs[part].T @ outputs[part] for part in parts]
    gram, moment = sum(grams), sum(moments)
    candidates = []
    for ridge in RIDGES:
        predicted = np.empty(outputs.shape)
        for part, own_gram, own_moment in zip(parts, grams, moments, strict=True):
            penalty = ridge * max(len(inputs) - part.sum(), 1) * np.eye(inputs.shape[1])
            predicted[part] = inputs[part] @ np.linalg.solve(gram - own_gram + penalty, moment - own_moment)
        candidates.append(predicted)
    return closest(outputs, *candidates)


def fit(inputs: np.ndarray, outputs: np.ndarray, fold: np.ndarray) -> np.ndarray:  # [N, D], [N, K], [N] -> [N, K]
    """`predict` from the inputs alone or from their waves as well, whichever suits an output better."""
    plain = predict(inputs, outputs, fold)
    return closest(outputs, plain, predict(np.concatenate([inputs, waves(inputs)], axis=1), outputs, fold))


def closest(outputs: np.ndarray, *candidates: np.ndarray) -> np.ndarray:  # [N, K], [N, K] each -> [N, K]
    """The candidate with the least squared error, for each column."""
    errors = np.array([np.sum(np.square(outputs - predicted), axis=0) for predicted in candidates])  # [C, K]
    return np.choose(errors.argmin(axis=0)[None], candidates)


def explained(actual: np.ndarray, predicted: np.ndarray) -> float:  # [N, K], [N, K] -> R^2
    """Portion of the variance that a prediction explains, of all columns together; below zero if it misleads."""
    spread = np.sum(np.square(actual - actual.mean(axis=0)))
    return float(1 - np.sum(np.square(actual - predicted)) / max(spread, 1e-30))
