"""How the images of an artifact are prepared: by its own record, and by options."""

import dataclasses
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts, preprocessing, records
from mobiledeploy.core.types import Artifact, Preprocessing
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.evaluation_images import preprocessing_of

OLD = Path(__file__).parents[1] / "core" / "version_1" / "artifact.json"
SYMMETRIC = Preprocessing((-1.0, 1.0))
ON_CODES = preprocessing.on_codes(SYMMETRIC)


@pytest.fixture
def old() -> Artifact:
    """A record of version 1, of a model for [-1, 1]."""
    return stating(records.loads(Artifact, OLD.read_text("utf-8")), SYMMETRIC)


def stating(artifact: Artifact, how: Preprocessing) -> Artifact:
    return dataclasses.replace(artifact, spec=dataclasses.replace(artifact.spec, preprocessing=how))


def test_an_old_record_keeps_its_pixels(old) -> None:
    assert preprocessing_of(old, Overrides()) == SYMMETRIC


def test_the_range_of_the_float_model_names_the_same_pixels(old) -> None:
    artifact = stating(old, ON_CODES)
    assert preprocessing_of(artifact, Overrides(input_range=(-1.0, 1.0))) == ON_CODES
    assert preprocessing_of(artifact, Overrides(crop=0.5)) == dataclasses.replace(
        ON_CODES, crop=0.5
    )


def test_another_range_replaces_the_mean_of_the_codes(old) -> None:
    artifact = stating(old, ON_CODES)
    assert preprocessing_of(artifact, Overrides(input_range=(0.0, 1.0))) == Preprocessing(
        (0.0, 1.0)
    )


def test_files_of_one_model_may_state_their_pixels_in_two_ways(old) -> None:
    one, other = stating(old, SYMMETRIC), stating(old, ON_CODES)
    assert artifacts.same_spec(one, other)
    assert artifacts.same_spec(other, one)
    assert not artifacts.same_spec(stating(old, Preprocessing((0.0, 1.0))), other)
