"""A change of champion that is not yet as it should be does not look like success in Prefect."""

from __future__ import annotations

from prefect.logging import disable_run_logger

from flows.takeover import concluded


def test_a_change_with_problems_ends_in_a_state_that_people_notice_and_that_says_that_it_stands() -> None:
    assert concluded("2", ()) is None
    with disable_run_logger():
        state = concluded("2", ("MLflow does not answer", "10 are served by version 1"))
    assert state is not None and state.is_failed() and state.name == "Needs attention"
    assert state.message == "version 2 is champion, but: MLflow does not answer; 10 are served by version 1"
