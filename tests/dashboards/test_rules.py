"""Tests the rules for Prometheus: valid, tested by promtool, with metrics and a runbook."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.dashboards import names
from tests.dashboards.observed import RULES
from tests.support.prometheus import PROMTOOL, require_prometheus
from tools import reference

CASES: Final = [*Path(__file__).parent.glob("alerts*.yaml")]
EVERY: Final = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
ALERTS: Final = [rule for rule in EVERY if "alert" in rule]


def _promtool(*arguments: str | Path) -> None:
    require_prometheus()
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    """The file is valid, and no rule is duplicated."""
    _promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    """Every case of promtool holds, including the texts of alerts."""
    _promtool("test", "rules", *CASES)


def test_every_alert_has_a_case_of_each_kind() -> None:
    """Each alert has a case in which it fires and a case in which it does not."""
    kinds: dict[str, set[bool]] = defaultdict(set)
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                kinds[check["alertname"]].add(bool(check["exp_alerts"]))
    assert dict(kinds) == {rule["alert"]: {True, False} for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_describes_symptom_and_remedy(rule: dict[str, Any]) -> None:
    """Each alert has a severity, a summary, a description, and a heading of the operators' page."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    texts = rule["annotations"]
    assert set(texts) == {"summary", "description", "runbook_url"}
    page, _, anchor = texts["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (\w+)$", (reference.DOCS.parent / page).read_text(), re.MULTILINE)
    assert anchor in map(str.lower, headings)
    assert rule["alert"].lower().startswith(anchor)


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_metrics_that_exist(rule: dict[str, Any]) -> None:
    """Each metric is in docs/metrics.md, each recorded series is recorded by an earlier rule."""
    assert names.metrics(rule["expr"]) <= names.documented()
    before = {other.get("record") for other in EVERY[: EVERY.index(rule)]}
    assert names.recorded(rule["expr"]) <= before
