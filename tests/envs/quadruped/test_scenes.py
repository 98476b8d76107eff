"""Scenes: what the robot can feel of the ground, and that the ground is what `Terrain` says."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx

from mjx_policies.envs.quadruped import scenes
from mjx_policies.envs.quadruped.scenes import KINDS, LEGS, SENSORS, TRUNK_GEOMS, check_model, flat, make_terrain, rough


@pytest.fixture(scope="module")
def plane():
    return flat()


@pytest.fixture(scope="module")
def terrain():
    return make_terrain(num_levels=3, tile_size=6.0)


@pytest.fixture(scope="module")
def hills(terrain):
    return rough(terrain)


def stand(model, origin=(0, 0, 0), lifted=None):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    data.qpos[:3] += origin
    data.qpos[2] -= 1e-3  # firmly on the ground
    if lifted:
        data.joint(f"{lifted}_calf_joint").qpos[0] = -2.5
    mujoco.mj_forward(model, data)
    return data


def tile(terrain, level, kind):
    cells = round(terrain.tile_size / terrain.resolution)
    margin = round(scenes.MARGIN / terrain.resolution)
    row, col = margin + KINDS.index(kind) * cells, margin + level * cells
    return np.asarray(terrain.heights)[row : row + cells + 1, col : col + cells + 1]


def test_both_scenes_pass_their_own_check(plane, hills):
    for model in (plane, hills):
        check_model(model)
        assert model.camera("track").bodyid[0] == model.body("trunk").id
        assert model.geom("floor").contype[0] == 0 and model.geom("floor").conaffinity[0] == 1


def test_a_lean_scene_has_what_tasks_read_and_moves_the_same(plane):
    lean = flat(lean=True)
    assert {lean.sensor(i).name: lean.sensor(i).dim[0] for i in range(lean.nsensor)} == SENSORS
    assert lean.ngeom < plane.ngeom
    rng = np.random.default_rng(0)
    targets = plane.key("home").ctrl + rng.normal(scale=0.3, size=(100, plane.nu))
    moved = []
    for model in (plane, lean):
        data = stand(model)
        for target in targets:
            data.ctrl = target
            mujoco.mj_step(model, data)
        moved.append(data.qpos.copy())
    np.testing.assert_array_equal(*moved)


@pytest.mark.parametrize("leg", LEGS)
def test_a_lifted_foot_reports_no_contact(plane, leg):
    data = stand(plane, lifted=leg)
    found = {name: data.sensor(f"{name}_foot_contact").data[0] for name in LEGS}
    assert found == {name: float(name != leg) for name in LEGS}
    assert not any(data.sensor(f"{geom}_contact").data[0] for geom in TRUNK_GEOMS)


@pytest.mark.parametrize("name", ["plane", "hills"])
def test_every_geom_of_the_trunk_that_collides_has_a_contact_sensor(name, request):
    model = request.getfixturevalue(name)
    trunk = model.geom_bodyid == model.body("trunk").id
    colliding = trunk & ((model.geom_contype | model.geom_conaffinity) != 0)
    assert tuple(model.geom(i).name for i in np.flatnonzero(colliding)) == TRUNK_GEOMS
    for geom in TRUNK_GEOMS:
        sensor = model.sensor(f"{geom}_contact")
        assert (sensor.objid[0], sensor.refid[0]) == (model.geom(geom).id, model.geom("floor").id)


def test_foot_forces_carry_the_weight(plane):
    data = stand(plane)
    for _ in range(1000):
        mujoco.mj_step(plane, data)
    normal = sum(data.sensor(f"{leg}_foot_contact").data[1] for leg in LEGS)
    np.testing.assert_allclose(normal, 16.087 * 9.81, rtol=1e-3)


def test_trunk_thigh_and_calf_contacts(plane):
    data = stand(plane)
    assert not any(data.sensor(f"{leg}_{part}_contact").data[0] for leg in LEGS for part in ("thigh", "calf"))
    data.qpos[2] = 0.05  # the trunk's underside is 0.057 below its origin
    mujoco.mj_forward(plane, data)
    assert all(data.sensor(f"{geom}_contact").data[0] > 0 for geom in TRUNK_GEOMS)
    data.qpos[2], data.qpos[3:7] = 0.1, [0, 1, 0, 0]  # on its back, legs in the air
    mujoco.mj_forward(plane, data)
    assert not any(data.sensor(f"{leg}_{part}_contact").data[0] for leg in LEGS for part in ("thigh", "calf"))
    data.qpos[3:7], data.qpos[7:] = [1, 0, 0, 0], np.tile([0, 1.5, -1.6], 4)
    data.qpos[2] = 0.02  # thighs level, knees 5 mm above the floor
    mujoco.mj_forward(plane, data)
    assert all(data.sensor(f"{leg}_{part}_contact").data[0] for leg in LEGS for part in ("thigh", "calf"))


def test_the_foot_decides_the_friction(plane):
    model = flat()
    model.geom_friction[[model.geom(f"{leg}_foot").id for leg in LEGS], 0] = 0.37
    model.geom("floor").friction[0] = 5.0
    np.testing.assert_array_equal(stand(model).contact.friction[:, 0], 0.37)


@pytest.mark.parametrize("name", ["plane", "hills"])
def test_mjx_agrees_with_mujoco(name, terrain, request):
    model = request.getfixturevalue(name)
    origin = terrain.origins[1, KINDS.index("slope_down")] if name == "hills" else np.zeros(3)
    reference = stand(model, origin)
    compiled = mjx.put_model(model)
    data = mjx.put_data(model, reference)
    assert data._impl.contact.dist.shape == (12,)  # the numeric max_contact_points is heeded
    num_steps = 25
    data = jax.jit(lambda data: jax.lax.fori_loop(0, num_steps, lambda _, d: mjx.step(compiled, d), data))(data)
    for _ in range(num_steps):
        mujoco.mj_step(model, reference)
    # float32 against float64 over 25 steps, with contacts.
    np.testing.assert_allclose(data.qpos, reference.qpos, atol=2e-4)
    found = [model.sensor(f"{leg}_foot_contact").adr[0] for leg in LEGS]
    assert (np.asarray(data.sensordata)[found] > 0).all() and (reference.sensordata[found] > 0).all()


def test_height_is_what_a_ray_hits(terrain, hills):
    data = mujoco.MjData(hills)
    data.qpos[2] = 50  # out of the way
    mujoco.mj_forward(hills, data)
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (500, 2)) * terrain.half_size
    hit = np.zeros(1, np.int32)
    expected = []
    for x, y in points:
        distance = mujoco.mj_ray(hills, data, np.array([x, y, 5.0]), np.array([0, 0, -1.0]), None, 1, -1, hit)
        assert hit[0] == hills.geom("floor").id
        expected.append(5.0 - distance)
    # Steps rise 0.15 m within one cell of 0.05 m, so float32 x of 1e-6 m becomes 3e-6 m.
    np.testing.assert_allclose(jax.jit(terrain.height)(points), expected, atol=2e-5)


def test_height_at_grid_points_and_beyond_the_edge(terrain):
    rows, cols = terrain.heights.shape
    half = np.array(terrain.half_size)
    r, c = np.random.default_rng(0).integers(0, (rows, cols), (50, 2)).T
    at_points = terrain.height(np.stack([c, r], -1) * terrain.resolution - half)
    # Rounding may move a point by 1e-6 m, on a slope of up to 3.
    np.testing.assert_allclose(at_points, terrain.heights[r, c], atol=2e-5)
    np.testing.assert_allclose(terrain.height(2 * half), terrain.heights[-1, -1])
    assert terrain.height(jnp.zeros((4, 3, 2))).shape == (4, 3)


def test_what_lies_inside_the_tiles(terrain):
    rows, columns = len(KINDS) * terrain.tile_size / 2, terrain.num_levels * terrain.tile_size / 2
    points = np.array([[0, 0], [columns - 0.01, rows - 0.01], [columns + 0.01, 0], [0, -rows - 0.01]])
    assert terrain.inside(points).tolist() == [True, True, False, False]
    assert terrain.inside(terrain.origins[..., :2]).all()


def test_difficulty_grows_with_the_level(terrain):
    for kind in KINDS:
        steepest = [np.abs(np.diff(tile(terrain, level, kind), axis=0)).max() for level in range(terrain.num_levels)]
        assert steepest[0] == 0 and (np.diff(steepest) > 0).all()
        expected = {"slope": scenes.SLOPE * terrain.resolution, "stairs": scenes.STEP}.get(kind.split("_")[0])
        if expected is not None:
            np.testing.assert_allclose(steepest[-1], expected, rtol=1e-4)
    hardest = {kind: tile(terrain, terrain.num_levels - 1, kind) for kind in KINDS}
    np.testing.assert_allclose(np.abs(hardest["bumps"]).max(), scenes.BUMP, rtol=1e-6)
    for kind in ("slope", "stairs"):
        np.testing.assert_allclose(hardest[f"{kind}_up"], -hardest[f"{kind}_down"])


def test_tiles_join_at_height_zero(terrain):
    for kind in KINDS:
        for level in range(terrain.num_levels):
            square = tile(terrain, level, kind)
            assert not np.concatenate([square[0], square[-1], square[:, 0], square[:, -1]]).any()


def test_origins_are_on_the_ground(terrain):
    height = np.asarray(terrain.height(terrain.origins[..., :2]))
    flat_top = np.array([kind != "bumps" for kind in KINDS])
    np.testing.assert_allclose(terrain.origins[:, flat_top, 2], height[:, flat_top], atol=1e-6)
    assert (terrain.origins[..., 2] >= height - 1e-6).all()
    np.testing.assert_allclose(np.diff(terrain.origins[:, 0, 0]), terrain.tile_size)
    np.testing.assert_allclose(np.diff(terrain.origins[0, :, 1]), terrain.tile_size)


def test_the_terrain_is_that_of_its_seed(terrain):
    again, other = (make_terrain(num_levels=3, tile_size=6.0, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.heights, terrain.heights)
    assert (other.heights != terrain.heights).any()


def test_default_terrain_is_modest():
    assert make_terrain().heights.size < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_levels": 1}, "at least 2 levels"),
        ({"tile_size": 2.0}, "at least 3.1 m"),
        ({"tile_size": 8.02}, "not a multiple"),
    ],
)
def test_terrain_rejects_what_it_cannot_build(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_terrain(**arguments)


def drop(collection, name):
    def edit(spec):
        spec.delete(next(item for item in getattr(spec, collection) if item.name == name))

    return edit


def rename(collection, name, new_name):
    def edit(spec):
        next(item for item in getattr(spec, collection) if item.name == name).name = new_name

    return edit


def swap_targets(spec):
    spec.actuator("FL_hip").target, spec.actuator("FR_hip").target = "FR_hip_joint", "FL_hip_joint"


def swap_actuators(spec):
    for old, new in (("FL_hip", "held"), ("FR_hip", "FL_hip"), ("held", "FR_hip")):
        spec.actuator(old).name = new


def no_calf_actuator(spec):
    drop("actuators", "RR_calf")(spec)
    spec.key("home").ctrl = list(spec.key("home").ctrl)[:11]


def no_free_joint(spec):
    drop("joints", "base")(spec)
    spec.key("home").qpos = list(spec.key("home").qpos)[7:]


def found_alone(spec):
    spec.sensor("FL_foot_contact").intprm[0] = 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            drop("sensors", "FL_foot_contact"),
            "lacks sensor 'FL_foot_contact', which Go2 tasks use; it has: orientation",
        ),
        (no_calf_actuator, "lacks actuator 'RR_calf'"),
        (drop("keys", "home"), "lacks keyframe 'home', which Go2 tasks use; it has: none"),
        (rename("sensors", "FL_foot_pos", "FL_foot_place"), "lacks sensor 'FL_foot_pos'"),
        (swap_targets, "actuator 'FL_hip' drives 'FR_hip_joint'"),
        (swap_actuators, "expect the order"),
        (no_free_joint, "first joint is 'FL_hip_joint', Go2 tasks expect the free joint"),
        (found_alone, "'FL_foot_contact' has 1 values, Go2 tasks read 4"),
    ],
)
def test_check_model_names_what_is_wrong(edit, message):
    spec = scenes._robot()
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    edit(spec)
    with pytest.raises(ValueError, match=message):
        check_model(spec.compile())
