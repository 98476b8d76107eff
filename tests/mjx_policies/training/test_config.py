import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_policies.errors import UserError
from mjx_policies.files import canonical_json
from mjx_policies.training.config import differences, from_json, may_change, to_json


class Mode(enum.Enum):
    FAST = 1
    EXACT = 2


@dataclasses.dataclass(frozen=True)
class Gaussian:
    std: float = 1.0


@dataclasses.dataclass(frozen=True)
class Diffusion:
    steps: int = 10


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 3e-4
    sizes: tuple[int, ...] = (128, 128)
    limits: tuple[float, float] = (-1.0, 1.0)
    name: str | None = None
    kind: Literal["mjx", "cpu", 3] = "mjx"

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError("rate must not be negative")


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = Inner()
    head: Gaussian | Diffusion = Gaussian()
    mode: Mode = Mode.FAST
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    terms: list[Inner] = dataclasses.field(default_factory=list)
    path: Path | None = None
    either: int | str | float = 0
    tagged: Annotated[int, "anything"] = 0
    loose: Any = None
    flag: bool = False
    total_steps: int = may_change(100)


names = st.text(max_size=5)
finite = st.floats(allow_nan=False)
inner = st.builds(
    Inner,
    rate=st.floats(min_value=0, allow_nan=False),
    sizes=st.lists(st.integers(-(2**63), 2**63), max_size=3).map(tuple),
    limits=st.tuples(finite, finite),
    name=st.none() | names,
    kind=st.sampled_from(["mjx", "cpu", 3]),
)
configs = st.builds(
    Config,
    inner=inner,
    head=st.builds(Gaussian, std=finite) | st.builds(Diffusion, steps=st.integers()),
    mode=st.sampled_from(Mode),
    weights=st.dictionaries(names, finite, max_size=3),
    terms=st.lists(inner, max_size=2),
    path=st.none() | st.sampled_from([Path("a/b"), Path("/c")]),
    either=st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    tagged=st.integers(),
    loose=st.none() | st.booleans() | st.lists(st.integers(), max_size=2),
    flag=st.booleans(),
    total_steps=st.integers(),
)


@given(configs)
def test_a_configuration_survives_json(config):
    text = canonical_json(to_json(config))
    back = from_json(Config, json.loads(text))
    assert back == config and canonical_json(to_json(back)) == text


@given(configs, configs)
def test_only_fields_that_may_change_may_change(a, b):
    same = dataclasses.replace(a, total_steps=0) == dataclasses.replace(b, total_steps=0)
    assert (differences(a, b) == []) == same


def test_nan_survives_json():
    assert math.isnan(from_json(Gaussian, to_json(Gaussian(math.nan))).std)
    assert differences(Gaussian(math.nan), Gaussian(math.nan)) == []


def test_differences_name_the_field():
    other = Config(inner=Inner(rate=0.1), head=Diffusion())
    assert differences(Config(), other) == [
        "inner.rate: 0.0003 in the run, now 0.1",
        "head: Gaussian(std=1.0) in the run, now Diffusion(steps=10)",
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("inner", "rate"), "fast", r"config\.inner\.rate should be float, not 'fast'"),
        (("inner", "rate"), True, r"config\.inner\.rate should be float"),
        (("inner", "rate"), -1.0, r"config\.inner makes no sense: rate must not be negative"),
        (("inner", "sizes"), 3, r"config\.inner\.sizes should be a list"),
        (("inner", "sizes"), [1, "x"], r"config\.inner\.sizes\[1\] should be int"),
        (("inner", "limits"), [1.0], r"should have 2 entries, not 1"),
        (("inner", "kind"), "warp", r"config\.inner\.kind should be"),
        (("inner", "speed"), 1, r"config\.inner has the field 'speed', which this version does not know"),
        (("inner",), {"_class": "Outer"}, r"config\.inner holds other settings than are wanted here"),
        (("inner",), 5, r"config\.inner holds other settings than are wanted here"),
        (("head",), {"_class": "Flow"}, r"config\.head holds other settings"),
        (("mode",), "SLOW", r"config\.mode should be Mode"),
        (("weights",), [], r"config\.weights should be"),
        (("weights",), {"a": "b"}, r"config\.weights\['a'\] should be float"),
        (("flag",), 1, r"config\.flag should be bool"),
        (("tagged",), 1.5, r"config\.tagged should be int"),
    ],
)
def test_wrong_values_are_named_by_their_path(path, value, message):
    data = to_json(Config())
    where = data
    for name in path[:-1]:
        where = where[name]
    where[path[-1]] = value
    with pytest.raises(UserError, match=message):
        from_json(Config, data)


def test_missing_fields_take_their_default_if_there_is_one():
    assert from_json(Inner, {"_class": "Inner", "rate": 1}) == Inner(rate=1.0)

    @dataclasses.dataclass(frozen=True)
    class Needs:
        x: int

    with pytest.raises(UserError, match=r"makes no sense: .*'x'"):
        from_json(Needs, {"_class": "Needs"})


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, b"x", Config])
def test_what_json_cannot_hold_is_named(value):
    with pytest.raises(UserError, match=r"config\.loose is a .*cannot be written"):
        to_json(Config(loose=value))
