"""The commands, metrics and alerts of docs/monitoring.md, the rules for Prometheus, the board for Grafana."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import yaml
from docs.listening import Listening
from harness import Running
from programs import need
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.anyio

PAGE = pages.read("docs/monitoring.md")
CONFIG, LOOK, RATE = PAGE.one("yaml", "scrape_configs"), PAGE.one("sh", "promtool"), PAGE.one("promql")
DEPLOY = pages.ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text("utf-8"))["groups"][0]["rules"]
RULES_TEST = yaml.safe_load((DEPLOY / "prometheus-rules.test.yml").read_text("utf-8"))
BOARD = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
ROWS = ["Traffic", "Jobs", "Upstreams", "Money", "Webhooks", "Processes"]
NAME = re.compile(r"\b((?:gateway|process)_[a-z_]+)\b")
PARTS = ("_bucket", "_sum", "_count")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """The expressions of the board and of the page, as Prometheus reads them."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "5m") for expr in [*found, RATE]]


def documented() -> dict[str, set[str]]:
    """The labels of each metric that has a row on the page."""
    rows = re.findall(r"^\| `((?:gateway|process)_\w+)` \| (.*?) \|", PAGE.text, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def names(texts: Iterable[str]) -> Iterator[str]:
    """The metrics that expressions name, histograms without their parts."""
    for text in texts:
        for name in NAME.findall(re.sub(r"{[^}]*}", "", text)):
            whole = next((name.removesuffix(part) for part in PARTS if name.endswith(f"_seconds{part}")), name)
            yield whole


async def checked(folder: Path, *arguments: str) -> str:
    return await pages.run(need("promtool"), *arguments, folder=folder)


async def test_the_commands_of_the_page_find_no_fault(listening: Listening, tmp_path: Path) -> None:
    need("promtool")
    for name in ("prometheus-rules.yml", "prometheus-rules.test.yml"):
        (tmp_path / name).write_bytes((DEPLOY / name).read_bytes())
    said = await pages.shell(LOOK, folder=tmp_path, GATEWAY=listening.url, GATEWAY_METRICS_KEY="not needed here")
    assert f"SUCCESS: {len(RULES)} rules found" in said
    assert said.rstrip().endswith("SUCCESS")


async def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "prometheus-rules.yml").write_bytes((DEPLOY / "prometheus-rules.yml").read_bytes())
    (tmp_path / "key").write_text("sk-metrics", "utf-8")
    text = CONFIG.replace("/etc/prometheus/video-gateway-metrics-key", "key")
    assert "credentials_file: key\n" in text
    (tmp_path / "prometheus.yml").write_text(text, "utf-8")
    assert "1 rule files found" in await checked(tmp_path, "check", "config", "prometheus.yml")
    jobs = {match for rule in RULES for match in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert jobs == {config["job_name"] for config in yaml.safe_load(CONFIG)["scrape_configs"]}


async def test_every_expression_of_the_board_can_be_read(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}), "utf-8")
    assert f"SUCCESS: {len(rules)} rules found" in await checked(tmp_path, "check", "rules", "board.yml")


def test_the_board_has_its_rows_and_one_source() -> None:
    assert [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"] == ROWS
    (variable,) = BOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    used = [thing["datasource"] for panel in panels() for thing in (panel, *panel["targets"])]
    assert {json.dumps(source) for source in used} == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    places = [
        (x, y)
        for panel in BOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(places) == len(set(places)), "panels lie upon each other"
    assert max(x for x, _ in places) < 24


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_is_shown_firing_and_ending_and_has_a_section(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(f"docs/monitoring.md#{name.lower()}")
    assert re.search(rf"^### {name}\n\n\w", PAGE.text, re.MULTILINE), "a section says what to do"
    (test,) = [test for test in RULES_TEST["tests"] if test["name"] == name]
    firing, ended = test["alert_rule_test"]
    assert (firing["alertname"], ended["alertname"]) == (name, name)
    assert firing["exp_alerts"]
    assert not ended["exp_alerts"]


def test_the_page_has_no_other_alerts() -> None:
    assert re.findall(r"^### (Gateway\w+)$", PAGE.text, re.MULTILINE) != []
    assert set(re.findall(r"^### (Gateway\w+)$", PAGE.text, re.MULTILINE)) == {rule["alert"] for rule in RULES}


async def test_every_metric_that_is_named_is_shown_and_every_one_shown_is_named(gateway: Running) -> None:
    video = await gateway.create(model="sandbox/testcard", seconds="1", size="128x128")
    await gateway.worker.run_once()
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    page = (await gateway.client.get("/metrics")).text
    families = list(text_string_to_metric_families(page))
    shown = {family.name + "_total" * (family.type == "counter") for family in families}
    rows = documented()
    assert rows.keys() == shown, "docs/monitoring.md has a row for each metric"
    in_text = [name for quoted in re.findall(r"`([^`\n]+)`", PAGE.text) for name in names([quoted])]
    named = {*names(rule["expr"] for rule in RULES), *names(expressions()), *in_text}
    assert named <= shown
    for family in families:
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + "_total" * (family.type == "counter")
        assert not family.samples or labels == rows[name] - {"pid"}, name
