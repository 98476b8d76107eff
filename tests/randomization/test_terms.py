"""Laws of randomization terms, over every constructor."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mujoco import mjx

from mjx_policies.envs.physics.base import check_dynamics, field_template
from mjx_policies.randomization import constants
from mjx_policies.randomization.dynamics import (
    actuator_kd,
    actuator_kp,
    actuator_strength,
    armature,
    center_of_mass,
    damping,
    friction,
    friction_loss,
    gravity,
    inertia,
    mass,
    payload,
    term,
)
from mjx_policies.randomization.terms import Randomization, apply, check, draw, extrinsics, sample

SERVOS = ("*_hip", "L_knee")

TERMS = {
    "friction": friction(0.4, 1.2, "*_foot"),
    "friction_scale": friction(0.5, 2.0, "*_foot", operation="scale", shared=False),
    "mass": mass(0.9, 1.1),
    "payload": payload(-1.0, 3.0, "trunk"),
    "inertia": inertia(0.8, 1.2, ["*_thigh"]),
    "center_of_mass": center_of_mass((-0.05, -0.03, -0.02), (0.05, 0.03, 0.02), "trunk"),
    "armature": armature(0.5, 2.0),
    "damping": damping(0.5, 2.0, "*_hip"),
    "friction_loss": friction_loss(0.5, 2.0),
    "kp": actuator_kp(0.9, 1.1, SERVOS),
    "kp_set": actuator_kp(10.0, 40.0, SERVOS, operation="set"),
    "kd": actuator_kd(0.9, 1.1, SERVOS),
    "strength": actuator_strength(0.85, 1.0, SERVOS),
    "gravity": gravity(-0.3, 0.3),
    "hip_place": term("body_pos", -0.01, 0.01, "*_thigh", operation="add", per_component=True),
    "gear": term("actuator_gear", 0.9, 1.1, columns=(0,)),
    "log": term("dof_damping", 0.1, 10.0, distribution="log_uniform"),
    "normal": term("body_mass", 0.5, 1.5, distribution="normal", sigmas=3.0),
}

every_term = pytest.mark.parametrize("name", TERMS)


def nominal_width(term, model):
    """The term with a range that holds the nominal value alone."""
    if term.operation != "set":
        value = {"scale": 1.0, "add": 0.0}[term.operation]
    elif term.targets[0].field == "geom_friction":
        value = 0.8
    else:
        return term.replace(low=(gains := jnp.array([[20.0], [30.0], [20.0]])), high=gains)
    return term.replace(low=value, high=value)


def assert_bits_equal(a, b, what):
    assert np.asarray(a).dtype == np.float32, what
    assert np.asarray(a).tobytes() == np.asarray(b, np.float32).tobytes(), what


def test_zero_width_is_the_nominal_model_bit_for_bit(robot):
    terms = {name: nominal_width(random_term, robot) for name, random_term in TERMS.items()}
    dynamics = jax.jit(lambda key: sample(key, terms, robot))(jax.random.key(0))
    assert {target.field for random_term in TERMS.values() for target in random_term.targets} <= set(dynamics)
    for field, value in dynamics.items():
        assert_bits_equal(value, field_template(robot, field), field)


@every_term
def test_zero_width_is_nominal_without_compilation(robot, name):
    for field, value in sample(jax.random.key(0), {name: nominal_width(TERMS[name], robot)}, robot).items():
        assert_bits_equal(value, field_template(robot, field), field)


@every_term
def test_only_the_named_entries_change(robot, name):
    dynamics = sample(jax.random.key(1), {name: TERMS[name]}, robot)
    check_dynamics(robot, dynamics)
    fields = {target.field for target in TERMS[name].targets}
    assert set(dynamics) == fields | set(constants.derived_fields(dict.fromkeys(fields), robot))
    for field in fields:
        changed = np.asarray(dynamics[field]) != field_template(robot, field)
        allowed = np.zeros(changed.shape, bool)
        allowed[_rows(robot, field, name)] = True
        assert changed.any() and not (changed & ~allowed).any(), field


def _rows(model, field, name):
    """The rows of a field that a term of this file may change, written by hand."""
    ids = {
        "friction": [model.geom(g).id for g in ("L_foot", "R_foot")],
        "friction_scale": [model.geom(g).id for g in ("L_foot", "R_foot")],
        "payload": [1],
        "center_of_mass": [1],
        "inertia": [2, 4],
        "hip_place": [2, 4],
        "damping": [6, 8],
        "gravity": slice(None),
        "gear": slice(None),
    }
    if field.startswith("dof") and name != "damping":
        return slice(6, None)  # not the free joint
    if field.startswith("actuator") and name != "gear":
        return slice(0, 3)
    return ids.get(name, slice(1, None))  # not the world


def test_a_new_term_leaves_the_other_draws_alone(robot):
    key = jax.random.key(2)
    few = {name: TERMS[name] for name in ("damping", "kp", "gravity")}
    more = {"mass": TERMS["mass"], **few, "friction": TERMS["friction"]}
    a, b = draw(key, few, robot), draw(key, more, robot)
    for name in few:
        assert_bits_equal(a[name], b[name], name)
    c, d = sample(key, few, robot), sample(key, more, robot)
    for field in c:
        assert_bits_equal(c[field], d[field], field)


def test_the_order_of_terms_is_their_own(robot):
    """JAX sorts dicts that pass through it; the robot must not depend on whether they did."""
    terms = {
        "payload": payload(1.5, 1.5, "trunk"),
        "z_mass": mass(2.0, 2.0),
        "weighed": term("body_mass", 5.0, 7.0, "trunk", operation="set"),
    }
    key = jax.random.key(0)
    draws = draw(key, terms, robot)
    weighed = 6.0 + float(draws["weighed"][0, 0])
    orders = [terms, dict(reversed(terms.items())), jax.tree.map(lambda x: x, terms)]
    for order in orders:
        dynamics = sample(key, order, robot)
        assert float(dynamics["body_mass"][robot.body("trunk").id]) == pytest.approx(2 * weighed + 1.5)
        np.testing.assert_array_equal(extrinsics(draws, order), extrinsics(draws, terms))
    inside = jax.jit(lambda terms: sample(key, terms, robot))(terms)
    np.testing.assert_allclose(inside["body_mass"], dynamics["body_mass"], rtol=1e-6)


def test_a_sampler_holds_its_ranges_as_leaves(robot):
    sampler = Randomization({"mass": mass(0.9, 1.1)}, robot)
    key = jax.random.key(0)
    traces = []

    @jax.jit
    def total(sampler):
        traces.append(1)
        return sampler(key).dynamics["body_mass"].sum()

    drawn, terms = sampler(key), sampler.terms
    assert float(total(sampler)) == pytest.approx(float(drawn.dynamics["body_mass"].sum()), rel=1e-6)
    np.testing.assert_array_equal(drawn.extrinsics, extrinsics(draw(key, terms, robot), terms))
    narrow = jax.tree.map(lambda x: 1.0 + 0 * x, sampler)
    assert float(total(narrow)) == pytest.approx(robot.body_mass.sum(), rel=1e-6)
    assert len(traces) == 1


def test_servo_gains_keep_their_two_places_in_step(robot):
    for name in ("kp", "kp_set"):
        dynamics = sample(jax.random.key(3), {name: TERMS[name]}, robot)
        np.testing.assert_array_equal(dynamics["actuator_gainprm"][:3, 0], -dynamics["actuator_biasprm"][:3, 1])


def test_shared_and_independent_draws(robot):
    one = sample(jax.random.key(4), {"x": friction(0.4, 1.2, "*_foot")}, robot)["geom_friction"]
    two = sample(jax.random.key(4), {"x": friction(0.4, 1.2, "*_foot", shared=False)}, robot)["geom_friction"]
    feet = [robot.geom("L_foot").id, robot.geom("R_foot").id]
    assert one[feet[0], 0] == one[feet[1], 0]
    assert two[feet[0], 0] != two[feet[1], 0]


def test_mass_takes_the_inertia_along(robot):
    dynamics = sample(jax.random.key(5), {"mass": mass(0.5, 2.0)}, robot)
    ratio = np.asarray(dynamics["body_mass"])[1:] / robot.body_mass[1:]
    np.testing.assert_allclose(
        np.asarray(dynamics["body_inertia"])[1:], robot.body_inertia[1:] * ratio[:, None], rtol=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(
    low=st.floats(0.125, 4.0, width=32),
    width=st.floats(0.0, 4.0, width=32),
    distribution=st.sampled_from(["uniform", "log_uniform", "normal"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_draws_stay_in_their_range(low, width, distribution, seed):
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='.1' friction='.5'/></body></worldbody></mujoco>"
    )
    high = np.float32(low) + np.float32(width)
    terms = {"x": term("geom_friction", low, high, columns=(0, 1, 2), per_component=True, operation="set")}
    terms["x"] = terms["x"].replace(distribution=distribution)
    draws = draw(jax.random.key(seed), terms, model)
    value = np.asarray(apply(draws, terms, model)["geom_friction"])
    assert (value >= np.float32(low)).all() and (value <= high).all()
    vector = np.asarray(extrinsics(draws, terms))
    assert (np.abs(vector) <= 1).all()
    if width == 0:
        assert not vector.any()


@pytest.mark.parametrize(
    ("distribution", "median", "deviation"),
    # standard deviation of a uniform variable on [1, 4]; of exp of one on [0, log 4]; of a normal one cut at 2 sigmas
    [("uniform", 2.5, 3 / 12**0.5), ("log_uniform", 2.0, 0.8557), ("normal", 2.5, 0.75 * 0.8796)],
)
def test_distributions_have_their_shape(robot, distribution, median, deviation):
    terms = {"x": term("opt.gravity", 1.0, 4.0, columns=(2,), operation="set", distribution=distribution)}
    keys = jax.random.split(jax.random.key(6), 20_000)
    values = np.asarray(jax.vmap(lambda key: sample(key, terms, robot)["opt.gravity"][2])(keys))
    assert np.median(values) == pytest.approx(median, abs=0.05)  # ten standard errors and more
    assert values.std() == pytest.approx(deviation, abs=0.02)


def test_ranges_are_traced_once_and_batch(robot):
    traces = []

    @jax.jit
    def masses(key, low, high):
        traces.append(1)
        return sample(key, {"mass": mass(low, high)}, robot)

    key = jax.random.key(7)
    lows, highs = jnp.array([1.0, 0.5, 0.9]), jnp.array([1.0, 0.6, 2.0])
    single = [masses(key, low, high) for low, high in zip(lows, highs, strict=True)]
    assert len(traces) == 1
    for field, value in single[0].items():
        assert_bits_equal(value, field_template(robot, field), field)
    batched = jax.vmap(lambda low, high: sample(key, {"mass": mass(low, high)}, robot))(lows, highs)
    for field, value in batched.items():
        # not bits: XLA fuses the two programs differently
        np.testing.assert_allclose(value, np.stack([row[field] for row in single]), rtol=1e-6, err_msg=field)


def test_terms_are_pytrees_of_their_ranges():
    assert jax.tree.leaves(TERMS["payload"]) == [-1.0, 3.0]
    wider = jax.tree.map(lambda x: 2 * x, TERMS["payload"])
    assert (wider.low, wider.high, wider.names) == (-2.0, 6.0, ("trunk",))


def _in_c(model, dynamics):
    """The model with the replaced fields, compiled further by the C engine."""
    changed = copy.copy(model)
    for field, value in dynamics.items():
        if field not in constants.FROM_INERTIA + constants.FROM_KINEMATICS:
            owner, attribute = (changed.opt, field[4:]) if field.startswith("opt.") else (changed, field)
            getattr(owner, attribute)[...] = value
    mujoco.mj_setConst(changed, mujoco.MjData(changed))
    return changed


@every_term
def test_derived_constants_are_those_of_the_c_engine(robot, name):
    """And no field that MJX knows follows from the change without being among them."""
    dynamics = sample(jax.random.key(8), {name: TERMS[name]}, robot)
    changed = _in_c(robot, dynamics)
    fields = [field.name for field in dataclasses.fields(mjx.Model) if hasattr(robot, field.name)]
    for field in fields:
        expected = getattr(changed, field)
        if not isinstance(expected, np.ndarray) or expected.dtype.kind != "f" or field.startswith(("light", "cam")):
            continue
        value = dynamics.get(field, field_template(robot, field))
        # Untouched entries keep float64 in our computation; here they are rounded once.
        np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-9, err_msg=field)


def test_derived_constants_under_nested_vmap_and_jit(robot):
    terms = {"mass": mass(0.5, 2.0), "com": center_of_mass(-0.05, 0.05, "trunk")}
    keys = jax.random.split(jax.random.key(9), (2, 3))
    nested = jax.jit(jax.vmap(jax.vmap(lambda key: sample(key, terms, robot))))(keys)
    for i, j in np.ndindex(2, 3):
        alone = sample(keys[i, j], terms, robot)
        for field, value in alone.items():
            np.testing.assert_allclose(nested[field][i, j], value, rtol=1e-6, atol=1e-9, err_msg=field)


def test_derived_constants_by_the_callback_of_other_devices(robot, monkeypatch):
    terms = {"mass": mass(0.5, 2.0)}
    key = jax.random.key(10)
    expected = sample(key, terms, robot)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for field, value in jax.jit(lambda key: sample(key, terms, robot))(key).items():
        np.testing.assert_allclose(value, expected[field], rtol=1e-6, err_msg=field)


def test_a_range_can_be_differentiated(robot):
    def trunk_mass(low):
        return sample(jax.random.key(11), {"mass": mass(low, 1.1)}, robot)["body_mass"][1]

    u = float(draw(jax.random.key(11), {"mass": mass(0.9, 1.1)}, robot)["mass"][0, 0])
    assert float(jax.grad(trunk_mass)(0.9)) == pytest.approx(6.0 * (1 - (u + 1) / 2), rel=1e-5)


def test_extrinsics_hold_the_draws_by_name(robot):
    draws = draw(jax.random.key(12), TERMS, robot)
    vector = extrinsics(draws, TERMS)
    np.testing.assert_array_equal(vector, np.concatenate([np.ravel(draws[name]) for name in sorted(TERMS)]))
    friction_value = apply(draws, {"friction": TERMS["friction"]}, robot)["geom_friction"][-1, 0]
    assert float(friction_value) == pytest.approx(0.8 + 0.4 * float(np.ravel(draws["friction"])[0]), rel=1e-5)
    fixed = {name: random_term.replace(high=random_term.low) for name, random_term in TERMS.items()}
    assert not np.asarray(extrinsics(draws, fixed)).any()
    assert extrinsics({}, {}).shape == (0,)
    assert sample(jax.random.key(0), {}, robot) == {}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (payload(0.0, 1.0, "torso"), "no body 'torso'; it has world, trunk, L_thigh, L_calf, R_thigh, R_calf"),
        (friction(0.4, 1.0, "*_toe"), "no geom '*_toe'; it has floor, box, L_thigh, L_foot"),
        (term("geom_frictions", 0.9, 1.1), "no float field 'geom_frictions'"),
        (term("geom_size", 0.9, 1.1), "geom_size also shapes collision volumes"),
        (term("dof_M0", 0.9, 1.1), "dof_M0 is derived"),
        (term("geom_friction", 0.9, 1.1, columns=(3,)), "columns 0 to 2"),
        (term("opt.gravity", 0.9, 1.1, "trunk"), "no elements to name"),
        (term("mat_shininess", 0.9, 1.1), "have no names"),
        (mass(1.1, 0.9), "begins above its end"),
        (mass(0.0, 1.0), "scale must be positive"),
        (mass(0.5, float("inf")), "must be finite"),
        (term("dof_damping", -1.0, 1.0, operation="add", distribution="log_uniform"), "log-uniform"),
        (payload(-7.0, 1.0, "trunk"), "body_mass could become -1, it must stay positive"),
        (damping(-1.0, 1.0, operation="add"), "dof_damping could become -0.6"),
        (friction_loss(0.0, 1.0, "base", operation="set"), "MJX leaves out"),
        (actuator_strength(0.9, 1.0), "no force limit"),
        (actuator_kp(0.9, 1.1, "R_knee"), "scaling it changes nothing"),
        (center_of_mass((0.0, 0.0), 1.0, "trunk"), "does not broadcast"),
    ],
)
def test_mistakes_are_named(robot, bad, message):
    with pytest.raises(ValueError) as error:
        check({"mine": bad}, robot)
    assert message in str(error.value)


def test_mistakes_are_found_before_tracing_ends(robot):
    with pytest.raises(ValueError, match="no body"):
        jax.jit(lambda key: sample(key, {"mine": mass(0.9, 1.1, "torso")}, robot))(jax.random.key(0))
    with pytest.raises(ValueError, match="could become"):  # only together
        check({"less": mass(0.1, 1.0), "payload": payload(-1.0, 0.0, "trunk")}, robot)


def test_a_simple_body_cannot_move_its_centre_of_mass():
    ball = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='ball'><freejoint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(ValueError, match="simple"):
        check({"com": center_of_mass(-0.01, 0.01, "ball")}, ball)


@pytest.mark.parametrize("wrong", [np.zeros(()), np.zeros((1, 1)), None])
def test_a_draw_of_another_shape_is_refused(robot, wrong):
    terms = {"a": friction(0.5, 1.0), "mass": mass(0.9, 1.1)}
    draws = draw(jax.random.key(0), terms, robot) | {"mass": wrong}
    if wrong is None:
        del draws["mass"]
    with pytest.raises(ValueError, match=r"the draw of randomization term 'mass' has shape .*, it must be \(5, 1\)"):
        apply(draws, terms, robot)
