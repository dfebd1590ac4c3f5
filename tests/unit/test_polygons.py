"""Outlines of cells by themselves: GeoJSON feature by feature, areas, crossings, and rings side by side."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmorph.read.geojson import features_of
from stmorph.read.polygons import MOST_VERTICES, measure_rings, padded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("features"), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=25, deadline=None)
@given(
    before=st.dictionaries(st.text(), JSON, max_size=3),
    features=st.lists(JSON, max_size=4),
    indent=st.none() | st.just(2),
)
def test_features_come_one_by_one_as_json_has_them(before, features, indent):
    before.pop("features", None)
    content = before | {"features": features, "name": {"features": [1]}}
    assert list(features_of(json.dumps(content, indent=indent))) == features
    assert list(features_of(" \n" + json.dumps(features, indent=indent) + "\n")) == features


def test_a_text_that_ends_early_or_late_is_told():
    text = json.dumps({"type": "FeatureCollection", "features": [{"a": [1, "}]"]}, {}], "crs": {"b": 2}})
    for whole in (text, json.dumps([{"a": 1}, {}])):
        for end in range(len(whole)):
            with pytest.raises(json.JSONDecodeError):
                list(features_of(whole[:end]))
        with pytest.raises(json.JSONDecodeError, match="more follows its end"):
            list(features_of(whole + "]"))
    with pytest.raises(ValueError, match="it is a GeoJSON Feature, not a FeatureCollection"):
        list(features_of('{"type": "Feature", "geometry": {"features": []}}'))


SQUARE = np.array([(0.0, 0), (4, 0), (4, 4), (0, 4)])
TURN = np.linspace(0, 2 * np.pi, 200, endpoint=False)
CIRCLE = np.column_stack([np.cos(TURN), np.sin(TURN)])


@pytest.mark.parametrize(
    ("ring", "measured", "crosses"),
    [
        (SQUARE, (2, 2, 16), False),
        (SQUARE[::-1] + 1e6, (1e6 + 2, 1e6 + 2, 16), False),
        (SQUARE[[0, 1, 2, 3, 0]], (2, 2, 16), False),  # closed
        (SQUARE[[0, 2, 1, 3]], (2, 2, 0), True),
        (SQUARE[[0, 0, 1, 1, 2, 3]], (2, 2, 16), False),  # vertices twice
        (np.array([(0.0, 0), (6, 0), (6, 1), (1, 1), (1, 5), (0, 5)]), (2, 1.5, 10), False),  # an L
        (np.array([(0.0, 0), (4, 0), (4, 4), (2, 0), (0, 4)]), None, False),  # a vertex on another edge only touches
        (CIRCLE[np.arange(0, 400, 3) % 200] * 3, None, True),
        (SQUARE[[0, 2]], (2, 2, 0), False),
        (SQUARE[:1], (0, 0, 0), False),
    ],
)
def test_rings_are_measured(ring, measured, crosses):
    around = [None, SQUARE, ring, CIRCLE * 2 + 7]  # the neighbours change nothing
    found, crossed = measure_rings(around)
    assert crossed.tolist() == [False, False, crosses, False]
    assert np.isnan(found[0, :2]).all() and found[0, 2] == 0
    np.testing.assert_allclose(found[1], (2, 2, 16))
    np.testing.assert_allclose(found[3], (7, 7, 4 * np.pi), rtol=1e-3)
    if measured is not None:
        np.testing.assert_allclose(found[2], measured)


def test_no_ring_is_longer_than_most_and_thinning_keeps_the_area():
    rings = [SQUARE, None, CIRCLE * 10]
    found = padded(rings)
    assert found.shape == (3, MOST_VERTICES, 2) and np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[0, :4], SQUARE)
    assert (found[0, 4:] == SQUARE[-1]).all()
    area = measure_rings(list(found[[0, 2]]))[0][:, 2]
    np.testing.assert_allclose(area, [16, 100 * np.pi], rtol=5e-3)
    assert padded([SQUARE, CIRCLE[:9]]).shape == (2, 9, 2) and padded([None]).shape == (1, 1, 2)
