"""Observation and action tables."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.spec import ActionTable, Term, table_column, table_markdown, table_size, table_slices
from mjx_policies.types import actuator_targets, assemble

TABLE = (
    Term("gyro", 3, unit="rad/s", frame="imu", kind="pseudovector", scale=0.25, noise=0.2, bias=0.02),
    Term("height", 1, unit="m"),
    Term("command", 2, unit="m/s", scale=-2.0, measured=False),
)
VALUES = {"gyro": jnp.asarray([4.0, 8.0, -12.0]), "height": jnp.asarray([0.3]), "command": jnp.asarray([0.5, -1.0])}


def test_a_vector_holds_the_terms_in_order_and_scaled():
    expected = np.float32([1.0, 2.0, -3.0, 0.3, -1.0, 2.0])
    np.testing.assert_array_equal(assemble(TABLE, VALUES), expected)
    reordered = dict(reversed(VALUES.items()))  # the table decides, not the dict
    np.testing.assert_array_equal(jax.jit(lambda values: assemble(TABLE, values))(reordered), expected)
    assert assemble(TABLE, VALUES).dtype == jnp.float32


def test_integers_and_booleans_become_numbers():
    table = (Term("contact", 2, unit="1"), Term("level", 1, unit="1"))
    vector = assemble(table, {"contact": jnp.asarray([True, False]), "level": np.asarray([3])})
    np.testing.assert_array_equal(vector, np.float32([1, 0, 3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gyro": None}, r"terms \['command', 'height'\] do not match the table's \['command', 'gyro', 'height'\]"),
        ({"extra": jnp.zeros(1)}, r"terms \['command', 'extra', 'gyro', 'height'\] do not match the table's"),
        ({"height": jnp.zeros(())}, r"observation term 'height' has shape \(\), the table says \(1,\)"),
        ({"gyro": jnp.zeros((3, 1))}, r"observation term 'gyro' has shape \(3, 1\), the table says \(3,\)"),
        ({"gyro": jnp.zeros(4)}, r"observation term 'gyro' has shape \(4,\), the table says \(3,\)"),
    ],
)
def test_assemble_explains_what_does_not_fit(change, message):
    values = {name: value for name, value in (VALUES | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        assemble(TABLE, values)


numbers = st.floats(0, 4, width=32, allow_subnormal=False)  # XLA takes those for zero


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), numbers | numbers.map(lambda x: -x), numbers), min_size=1))
def test_slices_and_columns_follow_the_sizes(rows):
    table = tuple(Term(f"term {i}", size, unit="1", scale=s, noise=n) for i, (size, s, n) in enumerate(rows))
    values = {term.name: np.full(term.size, i, np.float32) for i, term in enumerate(table)}
    vector = np.asarray(assemble(table, values))
    assert len(vector) == table_size(table)
    for i, term in enumerate(table):
        where = table_slices(table)[term.name]
        np.testing.assert_array_equal(vector[where], np.full(term.size, np.float32(i) * np.float32(term.scale)))
        np.testing.assert_array_equal(table_column(table, "noise")[where], np.full(term.size, term.noise))
    assert [s.start for s in table_slices(table).values()][1:] == [s.stop for s in table_slices(table).values()][:-1]
    assert table_column(table, "scale").dtype == np.float32


def test_columns_are_numbers():
    np.testing.assert_array_equal(table_column(TABLE, "measured"), [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(table_column(TABLE, "bias"), np.float32([0.02, 0.02, 0.02, 0, 0, 0]))


def test_the_documentation_has_a_row_for_each_term():
    head, line, gyro, height, command = table_markdown(TABLE).splitlines()
    assert head == "| index | term | unit | frame | scale | noise | bias |"
    assert line == "|---|---|---|---|---|---|---|"
    assert gyro == "| 0..2 | gyro | rad/s | imu | 0.25 | ±0.2 | ±0.02 |"
    assert height == "| 3 | height | m | – | 1 | – | – |"
    assert command == "| 4..5 | command | m/s | – | -2 | – | – |"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"size": 0}, "term 'x': size is 0, it must be at least 1"),
        ({"size": 1, "noise": -0.1}, "term 'x': noise and bias are half-widths and must not be negative"),
        ({"size": 1, "bias": -0.1}, "term 'x': noise and bias are half-widths and must not be negative"),
    ],
)
def test_a_senseless_row_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        Term("x", unit="1", **row)


ACTION = ActionTable(
    names=("hip", "knee"), default=(0.1, -1.5), scale=(0.5, 0.25), lower=(-0.2, -2.0), upper=(1.0, -1.0)
)


def test_the_documentation_has_a_row_for_each_action():
    assert ACTION.markdown().splitlines() == [
        "| index | actuator | default | scale | lower | upper |",
        "|---|---|---|---|---|---|",
        "| 0 | hip | 0.1 | 0.5 | -0.2 | 1 |",
        "| 1 | knee | -1.5 | 0.25 | -2 | -1 |",
    ]


def test_an_action_is_a_scaled_offset_within_limits():
    assert ACTION.size == 2
    actions = jnp.asarray([[0.0, 0.0], [1.0, -1.0], [10.0, 10.0], [-10.0, -10.0]])
    expected = np.float32([[0.1, -1.5], [0.6, -1.75], [1.0, -1.0], [-0.2, -2.0]])
    np.testing.assert_allclose(actuator_targets(ACTION, actions), expected, rtol=1e-6)  # one rounding in the sum
    np.testing.assert_array_equal(
        jax.vmap(functools.partial(actuator_targets, ACTION))(actions), actuator_targets(ACTION, actions)
    )
    clipped = dataclasses.replace(ACTION, clip=1.0)
    np.testing.assert_allclose(
        actuator_targets(clipped, actions), actuator_targets(ACTION, jnp.clip(actions, -1.0, 1.0))
    )


@pytest.mark.parametrize("field", ["default", "scale", "lower", "upper", "stiffness", "damping"])
def test_every_column_of_the_action_table_has_an_entry_for_each_name(field):
    columns = {name: (1.0, 2.0) for name in ("default", "scale", "lower", "upper", "stiffness", "damping")}
    assert ActionTable(("a", "b"), **columns).stiffness == (1.0, 2.0)
    with pytest.raises(ValueError, match=f"action table: {field} has 3 entries for 2 names"):
        ActionTable(("a", "b"), **columns | {field: (1.0, 2.0, 3.0)})
