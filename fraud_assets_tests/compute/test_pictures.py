"""The pictures are whole, repeatable, and drawn without matplotlib's global state."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from fraud_assets.compute import bootstrap, pictures
from fraud_assets.domain.errors import UnusableRecords
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.compute.holdouts import holdout, labels_of

RULES = Settings()
RANDOM = np.random.default_rng(0)
HOLDOUT = holdout(RANDOM, 200, 40, 20)
LABELS = labels_of(HOLDOUT)
SCORES = RANDOM.normal(LABELS, 1)
RIVALS = {"a constant": np.zeros(200), "a rule": RANDOM.random(200)}
GAINS = {"minutes_early": 40.0, "face_attempts": 9.0, "is_holiday": 0.0}


def pixels(picture: bytes) -> np.ndarray:
    return imread(BytesIO(picture), format="png")


def test_a_curve_is_a_png_of_readable_size():
    assert pixels(pictures.precision_recall_curve(LABELS, SCORES, RULES)).shape[:2] == (704, 880)


def test_the_same_numbers_give_the_same_bytes():
    once, again = (pictures.draw(HOLDOUT, SCORES, RIVALS, RULES) for _ in range(2))
    assert once == again
    assert pictures.feature_importance(GAINS) == pictures.feature_importance(dict(reversed(GAINS.items())))


def test_every_picture_of_a_model_is_drawn_and_is_a_png():
    drawn = pictures.draw(HOLDOUT, SCORES, RIVALS, RULES)
    names = ["precision_recall.png", "calibration.png", "threshold_cost.png", "score_histogram.png"]
    assert list(drawn) == names
    assert all(pixels(picture).shape[1] == 880 for picture in drawn.values())


def test_rivals_the_interval_and_other_limits_show():
    plain = pictures.precision_recall_curve(LABELS, SCORES, RULES)
    assert plain != pictures.precision_recall_curve(LABELS, SCORES, RULES, RIVALS)
    resamples = bootstrap.draw(HOLDOUT["guard_id"], RULES)
    assert plain != pictures.precision_recall_curve(LABELS, SCORES, RULES, resamples=resamples)
    assert plain != pictures.precision_recall_curve(
        LABELS, SCORES, Settings(minimum_precision_at_target_recall=0.9)
    )


def test_other_costs_move_the_cheapest_threshold():
    cheap = pictures.threshold_cost(LABELS, SCORES, RULES)
    assert cheap != pictures.threshold_cost(LABELS, SCORES, Settings(missed_fraud_cost=1))
    assert pixels(pictures.threshold_cost(LABELS, SCORES, Settings(missed_fraud_cost=0))).size > 0


def test_scores_that_all_tie_are_drawn_too():
    for picture in pictures.draw(HOLDOUT, np.full(200, 0.5), RIVALS, RULES).values():
        assert pixels(picture).size > 0


def test_a_holdout_of_one_class_is_not_drawn():
    with pytest.raises(UnusableRecords):
        pictures.precision_recall_curve(np.zeros(3), np.arange(3), RULES)


def test_a_picture_of_importance_grows_with_its_features_up_to_the_top():
    many = {f"feature_{number}": float(number) for number in range(40)}
    heights = [pixels(pictures.feature_importance(many, top)).shape[0] for top in (5, 15, 15)]
    assert heights[0] < heights[1] == heights[2]
    assert pictures.feature_importance(many) == pictures.feature_importance(many, 15)


@pytest.mark.parametrize("gains", [{}, {"is_holiday": 0.0}])
def test_a_model_that_leans_on_nothing_is_drawn_too(gains: dict[str, float]):
    assert pixels(pictures.feature_importance(gains)).size > 0


def test_pyplot_and_its_global_state_are_left_alone():
    program = (
        "import sys; from fraud_assets.compute import pictures;"
        "pictures.feature_importance({'a': 1.0}); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
