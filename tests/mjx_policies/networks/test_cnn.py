"""Convolutions and places against NumPy. Axes: H by W pixels, C channels, h by w places, F features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.networks.cnn import CNN
from mjx_policies.networks.spatial_softmax import SpatialSoftmax, expected_places

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (13, 15, 3), dtype=np.uint8)
NET = CNN((4, 5), (2, 1))
PARAMS = NET.init(jax.random.key(0), PIXELS)


def slow_layer(x, layer, stride):  # [H, W, C] -> [h, w, F]
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    rows, columns = ((n - 3) // stride + 1 for n in x.shape[:2])
    out = np.empty((rows, columns, len(bias)))
    for i in range(rows):
        for j in range(columns):
            patch = x[i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[i, j] = np.einsum("abc,abcf->f", patch, kernel) + bias
    return out


def test_layers_are_sums_over_patches():
    x = PIXELS / 127.5 - 1
    for name, stride in (("Conv_0", 2), ("Conv_1", 1)):
        x = np.maximum(slow_layer(x, PARAMS["params"][name], stride), 0)
    np.testing.assert_allclose(NET.apply(PARAMS, PIXELS), x, rtol=1e-4, atol=1e-5)


def test_floats_are_taken_as_they_are_and_other_integers_are_refused():
    scaled = jnp.asarray(PIXELS, jnp.float32) / 127.5 - 1
    np.testing.assert_allclose(NET.apply(PARAMS, PIXELS), NET.apply(PARAMS, scaled), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="pixels are int32, they must be uint8"):
        NET.apply(PARAMS, PIXELS.astype(np.int32))
    with pytest.raises(ValueError, match="pictures of 5 by 4 pixels are too small for 2 layers"):
        NET.init(jax.random.key(0), np.zeros((5, 4, 3), np.uint8))


def test_a_picture_that_moves_by_the_stride_moves_its_map_by_one():
    wide = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    left, right = NET.apply(PARAMS, wide[:, :15]), NET.apply(PARAMS, wide[:, 2:])
    np.testing.assert_allclose(left[:, 1:], right[:, :-1], atol=1e-5)


def test_a_condition_scales_and_shifts_features_and_begins_with_nothing():
    condition = jnp.asarray([0.5, -2.0])
    params = NET.init(jax.random.key(0), PIXELS, condition)
    np.testing.assert_allclose(NET.apply(params, PIXELS, condition), NET.apply(PARAMS, PIXELS), atol=1e-6)
    kernel = rng.normal(size=(2, 8)).astype(np.float32)
    params["params"]["film_0"]["kernel"] = kernel
    gain, shift = np.split(np.asarray(condition) @ kernel, 2)
    x = slow_layer(PIXELS / 127.5 - 1, PARAMS["params"]["Conv_0"], 2)
    x = np.maximum((1 + gain) * x + shift, 0)
    x = np.maximum(slow_layer(x, PARAMS["params"]["Conv_1"], 1), 0)
    np.testing.assert_allclose(NET.apply(params, PIXELS, condition), x, rtol=1e-4, atol=1e-4)


def blob(x, y, width=11, height=9, spread=0.8):  # -> [h, w]
    """Logarithm of a normal density around a place, in columns and rows."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return (-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2)).astype(np.float32)


places = jax.jit(expected_places)


@settings(deadline=None, max_examples=40)
@given(st.floats(3, 7), st.floats(3, 5), st.integers(-1, 1), st.integers(-1, 1))
def test_the_place_of_a_blob_is_its_centre_and_moves_with_it(x, y, dx, dy):
    first, second = blob(x, y), blob(x + dx, y + dy)
    found = np.asarray(places(np.stack([first, second], axis=-1), 1.0))
    # A density that is cut off by the border, or sampled, is off by less than a hundredth of a place here.
    np.testing.assert_allclose(found[0], [2 * x / 10 - 1, 2 * y / 8 - 1], atol=5e-3)
    np.testing.assert_allclose(found[1] - found[0], [2 * dx / 10, 2 * dy / 8], atol=5e-3)


def test_places_are_a_weighted_mean():
    maps = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    found = places(maps, 0.5)
    for o in range(2):
        for f in range(3):
            w = np.exp(maps[o, ..., f].astype(float) / 0.5)
            w /= w.sum()
            x = sum(w[i, j] * (2 * j / 4 - 1) for i in range(4) for j in range(5))
            y = sum(w[i, j] * (2 * i / 3 - 1) for i in range(4) for j in range(5))
            np.testing.assert_allclose(found[o, f], [x, y], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(places(np.zeros((4, 5, 1), np.float32), 1.0), 0.0, atol=1e-6)
    assert np.isfinite(places(1e6 * maps, 1.0)).all()


def test_points_are_mixtures_of_features():
    maps = rng.normal(size=(4, 5, 3)).astype(np.float32)
    net = SpatialSoftmax(2)
    params = net.init(jax.random.key(0), maps)
    kernel = np.asarray(params["params"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(net.apply(params, maps), places(maps @ kernel, 1.0).ravel(), atol=1e-5)
    assert SpatialSoftmax().apply(SpatialSoftmax().init(jax.random.key(0), maps), maps).shape == (6,)
