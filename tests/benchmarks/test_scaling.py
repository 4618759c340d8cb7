"""The scaling benchmark: its series run, and its verdicts follow from the figures."""

from __future__ import annotations

import json

import pytest

from benchmarks import scaling

__all__: list[str] = []
pytestmark = pytest.mark.usefixtures("one_thread")


def test_verdicts():
    rows = [{"cost": 10.0}, {"cost": 10.9}]
    found = scaling.verdict(rows, "cost", "cost")
    assert found == {"holds": True, "text": "cost within 9.0% (at most 10%)"}
    assert not scaling.verdict([*rows, {"cost": 9.9}], "cost", "cost")["holds"]


def test_the_series_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scaling, "TURN", 0.0)
    monkeypatch.setattr(scaling, "fixed_product", lambda: 1.0)
    batches = scaling.over_batch(1, (2, 4))
    assert [row["batch"] for row in batches["rows"]] == [2, 4]
    depths = scaling.over_depth(1, (20, 32), 1)
    for row in depths["rows"]:
        assert row["cost_of_layer"] == row["cost"] / row["depth"]
        assert row["cost_of_1e9"] > row["cost"]
    sizes = scaling.over_size(1, (8, 16), 1)
    assert all(row["cost"] > 0 for row in sizes["rows"])


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1), (None, 0)])
def test_the_status_is_the_verdict(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    holds: bool | None,
    status: int,
):
    result = {"rows": [{"cost": 1.5}], "holds": holds, "text": "as it is"}
    for name in ("batch", "threads"):
        monkeypatch.setitem(scaling.SERIES, name, lambda rounds: result)
    assert scaling.main(["batch", "--threads", "1"]) == status
    assert capsys.readouterr().out.splitlines()[-1].endswith(" as it is")
    assert scaling.main(["batch", "threads", "--threads", "1", "--json"]) == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["series"] == {"batch": result, "threads": result}
    assert printed["threads"] == 1
