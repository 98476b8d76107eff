"""Contract of a policy of FrankaPickCube, and small policies of it. Tests import it by path."""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from onnx import numpy_helper

from mjx_policies.deploy.contract import NoiseInput, dumps
from mjx_policies.deploy.policy import ExportedPolicy
from mjx_policies.deploy.validation import parse_model
from mjx_policies.envs.registry import load
from mjx_policies.export import Provenance, describe, export_policy

_spec = importlib.util.spec_from_file_location("files", Path(__file__).with_name("conftest.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

HORIZON, HISTORY = 16, 2
TASK = "FrankaPickCube"
NOISE = (NoiseInput("noise", (HORIZON, 8), "normal", 0.0),)


@functools.cache
def task():
    return load(TASK, "cpu", 1, "joint_target")


def described():
    return describe(task().spec, task().physics.model, Provenance(TASK, 0, 0), HISTORY, HORIZON)


def contract(**changes):
    """The contract of a Franka with the graph and the examples of another robot."""
    return dataclasses.replace(files.example_contract(), **described() | {"noise": NOISE} | changes)


@functools.cache
def policy_bytes():
    """Two layers whose actions are small, so that the arm stays about where it is."""
    model = files.perceptron(contract())
    for tensor in model.graph.initializer:
        if tensor.name in ("weight_1", "bias_1"):
            tensor.CopyFrom(numpy_helper.from_array(0.1 * numpy_helper.to_array(tensor), tensor.name))
    return files.with_text(model, dumps(files.complete(contract(), model)))


def policy():
    return ExportedPolicy(parse_model(policy_bytes()))


@functools.cache
def exported_bytes():
    """Two steps of an untrained flow, from the exporter."""
    size, shape = HISTORY * sum(term.size for term in task().spec.observation), (HORIZON, 8)
    keys = jax.random.split(jax.random.key(0), 2)
    see = 0.3 * jax.random.normal(keys[0], (size, 16)) / np.sqrt(size)
    say = 0.1 * jax.random.normal(keys[1], (16, HORIZON * 8))

    def act(observation, noise):
        seen, x = jnp.tanh(observation @ see), 0.05 * noise
        for _ in range(2):
            x = x + 0.5 * (jnp.tanh(seen @ say).reshape(shape) - x)
        return x

    observations = np.random.default_rng(0).normal(size=(20, size)).astype(np.float32)
    return export_policy(act, task().spec.action, described(), observations, noise=NOISE).data


def exported():
    return ExportedPolicy(parse_model(exported_bytes()))
