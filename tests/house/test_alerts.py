"""The rules and the dashboard are those of the code, every threshold stands once, every metric named exists."""

import json
import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from db.live import Live
from db.pool import Pool
from server.alerts import ALERTS, DASHBOARD_FILE, PANELS, RULES_FILE, RUNBOOK, dashboard_json, rules_yaml
from tests.house.test_docs import ROOT
from tests.support.station import station

METRIC = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
WORDS = {"clamp_min", "histogram_quantile"}


@pytest.mark.feature("003-52", "003-53", "003-54")
def test_the_files_are_those_of_the_table() -> None:
    assert RULES_FILE.read_text() == rules_yaml(), "stale: python -m server.alerts"
    assert DASHBOARD_FILE.read_text() == dashboard_json(), "stale: python -m server.alerts"


@pytest.mark.feature("003-52", "003-53", "003-21")
def test_the_rules_hold_the_limits_of_the_specification() -> None:
    groups = YAML(typ="safe").load(RULES_FILE.read_text())["groups"]
    rules: dict[str, Any] = {rule["alert"]: rule for group in groups for rule in group["rules"]}

    limits = {name: (rule["expr"].rsplit(" ", 2)[1:], rule["for"]) for name, rule in rules.items()}
    assert limits["ErrorRateHigh"] == ([">", "0.01"], "5m")
    assert limits["QueueDeep"][0] == [">", "4000"]
    assert limits["DiskFull"][0] == [">", "0.9"]
    assert limits["ApiSlow"] == ([">", "0.5"], "10m")
    assert limits["DatabaseSlow"][0] == [">", "1"]
    assert limits["FoldLate"][0] == [">", "60"]
    assert limits["PartitionsMissing"][0] == ["<", "2"]
    assert set(rules) == {alert.name for alert in ALERTS}


@pytest.mark.feature("003-54")
def test_dashboard_and_alerts_draw_the_same_line() -> None:
    lines = {panel[1]: panel[3] for panel in PANELS if panel[3] is not None}

    for alert in ALERTS:
        if alert.left in lines:
            assert lines[alert.left] == alert.limit
    assert len(lines.keys() & {alert.left for alert in ALERTS}) >= 5
    assert [panel["title"] for panel in json.loads(DASHBOARD_FILE.read_text())["panels"]] == [p[0] for p in PANELS]


@pytest.mark.feature("003-52")
def test_every_alert_has_its_paragraph_in_the_runbook() -> None:
    text = (ROOT / RUNBOOK).read_text()

    assert [alert.name for alert in ALERTS if f"### {alert.name}\n" not in text] == []


@pytest.mark.feature("003-49")
async def test_every_metric_that_a_rule_or_a_panel_names_is_published(pool: Pool, live: Live, redis_url: str) -> None:
    async with station(pool, live, redis_url) as place:
        text = (await place.api.metrics.metrics.text() + await place.worker_metrics().text()).decode()
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    known |= {f"{name}_bucket" for name in known}

    expressions = [alert.left for alert in ALERTS] + [panel[1] for panel in PANELS]
    named = {found for one in expressions for found in METRIC.findall(re.sub(r"\{[^}]*\}", "", one))} - WORDS

    assert named - known == set()
