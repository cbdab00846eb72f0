"""What a run says of its merge."""

from patientdx.evaluation.results import cosines


def test_branches_count_where_a_method_chose_between_sphere_and_line_and_nowhere_else():
    found = cosines(
        {
            "a": {"branch": "line", "cosine": 1.0},
            "b": {"branch": "sphere", "cosine": 0.5},
            "norm": {"branch": "mean"},  # of a method that has branches of its own
            "c": {"kept_1": 0.5},
        }
    )
    assert found == {"tensors": 2, "straight_lines": 1, "cosine_min": 0.5, "cosine_median": 1.0, "cosine_max": 1.0}
    assert cosines({"norm": {"branch": "mean"}}) == {}
