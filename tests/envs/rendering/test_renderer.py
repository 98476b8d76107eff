"""Pictures against `mj_multiRay`, closed forms and laws. Pixels on a silhouette may fall on either side of it."""

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_policies.envs.rendering import renderer as rendering
from mjx_policies.envs.rendering.renderer import camera_view, look_at, make_renderer, orbit
from mjx_policies.envs.rendering.scene import Geoms, nearest, scene_layout, surface
from mjx_policies.envs.rendering.shading import lines_integral, mean_over, square_wave_integral

H, W = 40, 48
SIZES = {
    "plane": (1.2, 0.8, 1),
    "sphere": (0.4, 0, 0),
    "capsule": (0.2, 0.5, 0),
    "ellipsoid": (0.3, 0.5, 0.2),
    "cylinder": (0.3, 0.4, 0),
    "box": (0.3, 0.2, 0.5),
}
BALL = """<mujoco><worldbody>
  <geom type="plane" size="0 0 1"/>
  <body pos=".2 .1 .5"><freejoint/><geom size=".3" rgba=".8 .2 .1 1"/></body>
  <camera name="top" pos="0 0 2.5"/>
</worldbody></mujoco>"""


def shape(kind):
    return getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}")


@pytest.fixture(autouse=True)
def no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def zoo():
    """Three of each primitive and a height field, anyhow, over an endless plane: model and its world poses."""
    rng = np.random.default_rng(0)
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=shape("plane"), size=[0, 0, 1], pos=[0, 0, -2])
    for kind, size in SIZES.items():
        for _ in range(3):
            spec.worldbody.add_geom(type=shape(kind), size=size, pos=rng.uniform(-2, 2, 3), quat=rng.normal(size=4))
    spec.add_hfield(name="hills", nrow=7, ncol=12, size=[1.5, 1, 0.6, 0.3], userdata=rng.uniform(size=84))
    spec.worldbody.add_geom(type=shape("hfield"), hfieldname="hills", pos=[0.5, 0, 0], quat=rng.normal(size=4))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def around(seed):
    """A camera somewhere outside the zoo."""
    direction = np.random.default_rng(seed).normal(size=3) * [1, 1, 0.4]
    return look_at(6 * direction / np.linalg.norm(direction), jnp.zeros(3), 50.0)


def pixel_rays(view):
    """Directions [H W, 3] and their cosines to the optical axis."""
    down, right = np.meshgrid(
        (np.arange(H) + 0.5) / H * 2 - 1, ((np.arange(W) + 0.5) / W * 2 - 1) * W / H, indexing="ij"
    )
    local = np.stack([right, -down, np.full_like(right, -1 / np.tan(np.radians(view.fovy) / 2))], axis=-1)
    local = local.reshape(-1, 3) / np.linalg.norm(local.reshape(-1, 3), axis=1, keepdims=True)
    return local @ np.asarray(view.rotation, float).T, -local[:, 2]


def mujoco_rays(model, data, origin, directions):
    """Distance (infinite for none), geom (-1 for none) and normal."""
    count = len(directions)
    geom, distance, normal = np.zeros(count, np.int32), np.zeros(count), np.zeros(3 * count)
    origin, flat = np.asarray(origin, float), directions.ravel()
    mujoco.mj_multiRay(model, data, origin, flat, None, True, -1, geom, distance, normal, count, mujoco.mjMAXVAL)
    return np.where(geom < 0, np.inf, distance), geom, normal.reshape(-1, 3)


def test_depth_and_geoms_are_those_of_mujoco(zoo):
    model, data = zoo
    renderer = make_renderer(model, H, W)
    seen = set()
    for seed in range(6):
        view = around(seed)
        pixels = renderer.render(jnp.asarray(data.geom_xpos), jnp.asarray(data.geom_xmat), view, renderer.appearance)
        directions, cosine = pixel_rays(view)
        distance, geom, normal = mujoco_rays(model, data, view.position, directions)
        same = np.asarray(pixels.geom).ravel() == geom
        assert same.mean() > 0.997
        clear = same & ((np.abs(np.sum(directions * normal, axis=1)) > 0.05) | (geom < 0))
        np.testing.assert_allclose(np.asarray(pixels.depth).ravel()[clear], (distance * cosine)[clear], rtol=2e-5)
        seen |= set(geom)
    assert seen == set(range(-1, model.ngeom))


def test_normals_are_those_of_mujoco(zoo):
    model, data = zoo
    layout = scene_layout(model, (0,))
    hfields = make_renderer(model, 1, 1).appearance.hfields
    mats = jnp.asarray(data.geom_xmat).reshape(-1, 3, 3)
    geoms = Geoms(jnp.asarray(data.geom_xpos), mats, jnp.asarray(model.geom_size, jnp.float32), hfields)

    @jax.jit
    def normals(origin, directions):
        eye, ray = (tuple(x[i].reshape(1, -1) for i in range(3)) for x in (origin, directions.T))
        distance, geom = nearest(layout, geoms, eye, ray)
        point = origin[:, None] + distance[None] * directions.T
        return geom, jnp.stack(surface(layout, geoms, jnp.maximum(geom, 0), tuple(point)).normal, axis=-1)

    for seed in range(6):
        view = around(seed)
        directions, _ = pixel_rays(view)
        geom, normal = normals(view.position, jnp.asarray(directions, jnp.float32))
        _, expected_geom, expected = mujoco_rays(model, data, view.position, directions)
        same = (np.asarray(geom) == expected_geom) & (expected_geom >= 0)
        agree = np.sum(np.asarray(normal) * expected, axis=1)[same] > 1 - 1e-4
        assert agree.mean() > 0.998  # the others lie on an edge, where two faces meet


def test_look_at_sees_its_target_in_the_middle_and_a_solid_only_from_outside():
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1' pos='1 0 0'/></worldbody></mujoco>")
    renderer = make_renderer(model, 5, 5)
    outside = renderer.render_qpos(jnp.zeros(0), look_at((2, 3, 4), (1, 0, 0)))
    assert outside.geom[2, 2] == 0
    np.testing.assert_allclose(outside.depth[2, 2], np.sqrt(26) - 1, rtol=1e-5)
    assert np.all(renderer.render_qpos(jnp.zeros(0), look_at((1.5, 0, 0), (1, 0, 0))).geom == -1)


@pytest.fixture(scope="module")
def balls():
    """Draws the ball from above, with and without its shadow."""
    model = mujoco.MjModel.from_xml_string(BALL)
    return model, [
        make_renderer(model, H, W, camera="top", shadows=shadows, floor="plain") for shadows in (True, False)
    ]


@pytest.mark.parametrize("light", [(-0.3, 0.4, 1.0, 0.0), (0.5, -0.4, 3.0, 1.0)], ids=["direction", "position"])
def test_the_shadow_of_a_ball_lies_where_the_closed_form_says(balls, light):
    model, renderers = balls
    appearance = renderers[0].appearance.replace(light=jnp.array(light))
    qpos = jnp.asarray(model.qpos0, jnp.float32)
    pictures = [renderer.render_qpos(qpos, appearance=appearance) for renderer in renderers]
    view = camera_view(model, "top", model.cam_pos0, model.cam_mat0)
    directions, cosine = pixel_rays(view)
    point = np.array([0, 0, 2.5]) + directions * (np.asarray(pictures[0].depth).ravel() / cosine)[:, None]
    towards = np.array(light[:3]) - light[3] * point
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    offset = np.array([0.2, 0.1, 0.5]) - point
    miss = np.linalg.norm(offset - np.sum(offset * towards, axis=1, keepdims=True) * towards, axis=1)
    on_floor = np.asarray(pictures[0].geom).ravel() == 0
    dark = np.any(np.asarray(pictures[0].rgb) != np.asarray(pictures[1].rgb), axis=-1).ravel()
    np.testing.assert_array_equal(dark[on_floor], miss[on_floor] < 0.3)
    assert dark[on_floor].sum() > 20


def test_jit_equals_eager():
    model = mujoco.MjModel.from_xml_string(BALL)
    renderer = make_renderer(model, 3, 4)
    poses = jnp.array([[0, 0, 0], [0.2, 0.1, 0.5]]), jnp.tile(jnp.eye(3), (2, 1, 1))
    arguments = (*poses, look_at((1.2, 1.1, 0.5), (0.2, 0.1, 0.5)), renderer.appearance)
    jitted = renderer.render(*arguments)
    with jax.disable_jit():
        eager = renderer.render(*arguments)
    np.testing.assert_array_equal(jitted.geom, eager.geom)
    np.testing.assert_allclose(jitted.depth, eager.depth, rtol=1e-5)
    np.testing.assert_allclose(np.int32(jitted.rgb), np.int32(eager.rgb), atol=1)  # rounding to 1 / 255


def test_vmap_equals_a_loop_and_repeated_calls_trace_once():
    model = mujoco.MjModel.from_xml_string(BALL)
    renderer = make_renderer(model, 8, 8, shadows=False)
    qpos = jnp.asarray(np.tile(model.qpos0, (3, 1)), jnp.float32).at[:, 0].add(jnp.array([0.0, 0.2, 0.5]))
    rgb = jnp.array([[0.1, 0.2, 0.3], [0.9, 0.1, 0.5], [0.4, 0.4, 0.9]])[:, None] * jnp.ones((1, 2, 1))
    view = jax.jit(jax.vmap(lambda q: orbit(q[:3], 2.0, 60.0, -30.0)))(qpos)
    draw = jax.jit(
        chex.assert_max_traces(lambda q, v, c: renderer.render_qpos(q, v, renderer.appearance.replace(geom_rgb=c)), n=1)
    )
    loop = [draw(*(jax.tree.map(lambda x, i=i: x[i], (qpos, view, rgb)))) for i in range(3)]
    batch = jax.vmap(lambda q, v, c: renderer.render_qpos(q, v, renderer.appearance.replace(geom_rgb=c)))(
        qpos, view, rgb
    )
    for i in range(3):
        np.testing.assert_array_equal(batch.geom[i], loop[i].geom)
        np.testing.assert_allclose(batch.depth[i], loop[i].depth, rtol=1e-5)
        np.testing.assert_allclose(np.int32(batch.rgb[i]), np.int32(loop[i].rgb), atol=1)
    assert loop[0].rgb.dtype == jnp.uint8 and np.any(loop[0].rgb != loop[1].rgb)


def test_pictures_in_chunks_equal_pictures_in_one_piece(monkeypatch):
    model = mujoco.MjModel.from_xml_string(BALL)
    qpos, view = jnp.asarray(model.qpos0, jnp.float32), look_at((2.2, 1.1, 1.5), (0.2, 0.1, 0.9), 60.0)
    whole = make_renderer(model, 7, 9, shadows=False).render_qpos(qpos, view)
    monkeypatch.setattr(rendering, "CHUNK", 20)
    chunks = make_renderer(model, 7, 9, shadows=False).render_qpos(qpos, view)
    np.testing.assert_array_equal(chunks.geom, whole.geom)
    np.testing.assert_allclose(chunks.depth, whole.depth, rtol=1e-5)
    np.testing.assert_allclose(np.int32(chunks.rgb), np.int32(whole.rgb), atol=1)


def test_samples_average_colours_and_keep_the_nearest_depth():
    model = mujoco.MjModel.from_xml_string(BALL)
    qpos, view = jnp.asarray(model.qpos0, jnp.float32), look_at((2.2, 1.1, 1.5), (0.2, 0.1, 0.9), 60.0)
    one = make_renderer(model, 16, 20, floor="plain", shadows=False).render_qpos(qpos, view)
    two = make_renderer(model, 8, 10, samples=2, floor="plain", shadows=False).render_qpos(qpos, view)
    blocks = np.asarray(one.rgb, float).reshape(8, 2, 10, 2, 3)
    np.testing.assert_allclose(two.rgb, blocks.mean(axis=(1, 3)), atol=1.1)  # rounded twice
    np.testing.assert_allclose(two.depth, np.asarray(one.depth).reshape(8, 2, 10, 2).min(axis=(1, 3)), rtol=1e-5)
    assert set(np.unique(two.geom)) == {-1, 0, 1}


@pytest.mark.parametrize("azimuth, elevation", [(0.0, 0.0), (90.0, -45.0), (215.0, 30.0)])
def test_orbit_is_the_free_camera_of_mujoco(azimuth, elevation):
    model = mujoco.MjModel.from_xml_string(BALL)
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = (0.1, 0.2, 0.3), 3.0, azimuth, elevation
    scene, data = mujoco.MjvScene(model, 10), mujoco.MjData(model)
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
    view = orbit(jnp.array([0.1, 0.2, 0.3]), 3.0, azimuth, elevation)
    position = (np.array(scene.camera[0].pos) + scene.camera[1].pos) / 2  # of the left and right eye
    np.testing.assert_allclose(view.position, position, atol=1e-5)
    np.testing.assert_allclose(-view.rotation[:, 2], scene.camera[0].forward, atol=1e-5)
    np.testing.assert_allclose(view.rotation[:, 1], scene.camera[0].up, atol=1e-5)


def test_only_the_chosen_groups_and_visible_geoms_are_drawn():
    model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody>
      <geom size="1" group="3"/> <geom size=".9" rgba="1 1 1 0"/> <geom size=".5"/>
    </worldbody></mujoco>""")
    view = look_at((3, 0, 0), (0, 0, 0))
    assert make_renderer(model, 3, 3, shadows=False).render_qpos(jnp.zeros(0), view).geom[1, 1] == 2
    assert make_renderer(model, 3, 3, shadows=False, groups=(0, 3)).render_qpos(jnp.zeros(0), view).geom[1, 1] == 0
    assert make_renderer(model, 3, 3, shadows=False, groups=()).render_qpos(jnp.zeros(0), view).geom[1, 1] == -1


def test_colours_come_from_the_geometry_or_else_its_material():
    model = mujoco.MjModel.from_xml_string("""<mujoco>
      <asset><material name="red" rgba="1 0 0 1" specular=".7" shininess=".9"/></asset>
      <worldbody>
        <geom size="1" material="red"/><geom size="1" material="red" rgba="0 1 0 1"/><geom size="1"/>
      </worldbody>
    </mujoco>""")
    appearance = make_renderer(model, 1, 1).appearance
    np.testing.assert_allclose(appearance.geom_rgb, [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(appearance.geom_specular[0], 0.7)


@pytest.mark.parametrize("integral", [square_wave_integral, lines_integral])
def test_patterns_are_averaged_over_the_pixel(integral):
    x, fine = np.linspace(-3, 3, 13, dtype=np.float32), 1e-2
    for width in (0.3, 1.7):
        parts = x[:, None] + (np.arange(200) + 0.5)[None] / 200 * width - width / 2
        expected = np.mean([mean_over(integral, jnp.asarray(p), jnp.full_like(p, fine)) for p in parts.T], axis=0)
        np.testing.assert_allclose(mean_over(integral, jnp.asarray(x), jnp.full_like(x, width)), expected, atol=0.02)


def test_what_cannot_be_drawn_is_refused_by_name():
    mesh = mujoco.MjModel.from_xml_string("""<mujoco>
      <asset><mesh name="tetrahedron" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>
      <worldbody><geom name="shell" type="mesh" mesh="tetrahedron"/><camera name="eye"/></worldbody>
    </mujoco>""")
    with pytest.raises(ValueError, match=r"geom 'shell' is of type mesh, which cannot be drawn: replace it by box, .*"):
        make_renderer(mesh, 8, 8)
    make_renderer(mesh, 8, 8, groups=(1,))
    with pytest.raises(ValueError, match=r"no camera 'nose'; it has \['eye'\]"):
        make_renderer(mesh, 8, 8, groups=(1,), camera="nose")
    with pytest.raises(ValueError, match="must each be at least 1"):
        make_renderer(mesh, 8, 0)
    with pytest.raises(ValueError, match="floor is 'tiles'"):
        make_renderer(mesh, 8, 8, groups=(1,), floor="tiles")
