"""Alerts and dashboard: every threshold once, and the files for Prometheus and Grafana that are made of them.

`python -m server.alerts` writes both files; a house test holds them against this table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "operations"
RULES_FILE, DASHBOARD_FILE = FOLDER / "alerts.yml", FOLDER / "dashboard.json"
RUNBOOK = "docs/operations.md"

ERROR_RATIO_MAX = 0.01  # 003-52; the dashboard's red line too (003-54)
API_P95_SECONDS_MAX = 0.5  # 003-53
DATABASE_P95_SECONDS_MAX = 1.0
LAG_SECONDS_MAX = 60
QUEUE_DEPTH_MAX = 4_000  # 80 % of the 5,000 rows that one worker claims at once
DISK_USED_MAX = 0.9
PARTITIONS_AHEAD_MIN = 2  # 003-21
LOST_HINTS_PER_SECOND_MAX = 1

ERROR_RATIO = (
    'sum(rate(http_requests_total{outcome="failed"}[5m])) / clamp_min(sum(rate(http_requests_total[5m])), 0.001)'
)
API_P95 = "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))"
DATABASE_P95 = "histogram_quantile(0.95, sum by (le) (rate(database_seconds_bucket[5m])))"


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule: it fires when `left` stands beyond `limit` for so long."""

    name: str
    severity: str  # critical wakes somebody, warning waits for the morning
    left: str
    sign: str
    limit: float
    lasts: str
    says: str

    @property
    def expression(self) -> str:
        """What Prometheus evaluates."""
        return f"{self.left} {self.sign} {self.limit:g}"


ALERTS = (
    Alert("ErrorRateHigh", "critical", ERROR_RATIO, ">", ERROR_RATIO_MAX, "5m", "requests fail through our fault"),
    Alert("PoolExhausted", "critical", "sum by (instance) (rate(db_connections_refused_total[1m]))", ">", 0, "1m",
          "no database connection is free within a second"),
    Alert("QueueDeep", "critical", 'max(event_queue_depth)', ">", QUEUE_DEPTH_MAX, "2m",
          "more rows wait than the workers take"),
    Alert("DiskFull", "critical", "max by (instance) (disk_used_ratio)", ">", DISK_USED_MAX, "5m",
          "the disk is nearly full"),
    Alert("DatabaseAway", "critical", "max(database_up)", "<", 1, "1m", "no process reaches Postgres"),
    Alert("PartitionsMissing", "critical", "min(partitions_ahead)", "<", PARTITIONS_AHEAD_MIN, "1h",
          "the log's months are not made ahead"),
    Alert("ProjectionDrift", "critical", 'sum(increase(failures_total{kind="PROJECTION_DRIFT"}[1h]))', ">", 0, "0m",
          "a check found numbers that are not those of the log"),
    Alert("ApiSlow", "warning", API_P95, ">", API_P95_SECONDS_MAX, "10m", "p95 of requests is high"),
    Alert("DatabaseSlow", "warning", DATABASE_P95, ">", DATABASE_P95_SECONDS_MAX, "5m", "p95 of transactions is high"),
    Alert("FoldLate", "warning", "max(event_queue_oldest_seconds)", ">", LAG_SECONDS_MAX, "1m",
          "recorded events are not counted in time"),
    Alert("EventsDead", "warning", 'sum(increase(failures_total{kind=~"EVENT_DEAD|ROW_DEAD"}[15m]))', ">", 0, "0m",
          "an event cannot be folded and was set aside"),
    Alert("HintsLost", "warning", "sum(rate(wake_failures_total[5m])) + sum(rate(live_failures_total[5m]))", ">",
          LOST_HINTS_PER_SECOND_MAX, "5m", "Redis is away or slow: all works, a second later"),
)  # fmt: skip


def rules_yaml() -> str:
    """The rules file of Prometheus."""
    lines = ["# Written by `python -m server.alerts` from server/alerts.py: change it there.", "groups:"]
    for severity in ("critical", "warning"):
        lines += [f"  - name: sightline-{severity}", "    rules:"]
        for alert in ALERTS:
            if alert.severity == severity:
                lines += [
                    f"      - alert: {alert.name}",
                    f"        expr: {json.dumps(alert.expression)}",
                    f"        for: {alert.lasts}",
                    f"        labels: {{severity: {severity}}}",
                    "        annotations:",
                    f"          summary: {json.dumps(alert.says)}",
                    f'          runbook: "{RUNBOOK}#{alert.name.lower()}"',
                ]
    return "\n".join(lines) + "\n"


PANELS: tuple[tuple[str, str, str, float | None], ...] = (
    ("Requests per second, by outcome", "sum by (outcome) (rate(http_requests_total[1m]))", "reqps", None),
    ("Error ratio", ERROR_RATIO, "percentunit", ERROR_RATIO_MAX),
    ("Request p50", API_P95.replace("0.95", "0.5"), "s", API_P95_SECONDS_MAX),
    ("Request p95", API_P95, "s", API_P95_SECONDS_MAX),
    ("Request p99", API_P95.replace("0.95", "0.99"), "s", API_P95_SECONDS_MAX),
    ("Dashboard p95", API_P95.replace("http_request_duration_seconds", "dashboard_latency_seconds"), "s",
     API_P95_SECONDS_MAX),
    ("Events per second, by answer", "sum by (status) (rate(events_ingested_total[1m]))", "short", None),
    ("Rows waiting", "max(event_queue_depth)", "short", QUEUE_DEPTH_MAX),
    ("Oldest waiting row", "max(event_queue_oldest_seconds)", "s", LAG_SECONDS_MAX),
    ("Stored to visible, p95", API_P95.replace("http_request_duration_seconds", "worker_latency_seconds"), "s",
     LAG_SECONDS_MAX),
    ("Worker saturation", "worker_saturation_ratio", "percentunit", None),
    ("Database p95", DATABASE_P95, "s", DATABASE_P95_SECONDS_MAX),
    ("Database connections in use", "db_connections_active / db_connections_max", "percentunit", None),
    ("Open WebSockets", "sum(websocket_connections_active)", "short", None),
    ("Failures per second, by kind", "sum by (kind) (rate(failures_total[5m]))", "short", None),
    ("Disk used", "max by (instance) (disk_used_ratio)", "percentunit", DISK_USED_MAX),
)  # fmt: skip


def dashboard_json() -> str:
    """The dashboard file of Grafana; red lines stand where the alerts stand."""
    panels = [_panel(place, *row) for place, row in enumerate(PANELS)]
    board = {
        "title": "Sightline",
        "uid": "sightline",
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"


def _panel(place: int, title: str, expression: str, unit: str, limit: float | None) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if limit is not None:
        steps.append({"color": "red", "value": limit})
    return {
        "id": place + 1,
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"h": 7, "w": 8, "x": place % 3 * 8, "y": place // 3 * 7},
        "targets": [{"refId": "A", "expr": expression}],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "off" if limit is None else "line"}},
            },
            "overrides": [],
        },
    }


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    RULES_FILE.write_text(rules_yaml())
    DASHBOARD_FILE.write_text(dashboard_json())


if __name__ == "__main__":
    main()
