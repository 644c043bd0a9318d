"""The commands, addresses and settings of docs/deploy.md."""

import json
import re
from pathlib import Path

import pages
import pytest
from fakes.bucket import open_bucket
from harness import ALICE
from money import ADMIN
from processes import served
from programs import need

from app.db.address import read_address
from app.settings import load

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/deploy.md")
DOCTOR = PAGE.one("sh", "video-gateway doctor")
ADDRESSES, POOLER, S3 = PAGE.one("text", "postgresql://"), PAGE.one("sh", "pgbouncer"), PAGE.one("sh", "s3://")
ORIGINS, CORS_RULE = PAGE.one("sh", "GATEWAY_CORS_ORIGINS"), PAGE.one("json", "CORSRules")
COMPLAINT = PAGE.one("sh", "gateway.log")


def test_addresses_can_be_read() -> None:
    lines = [line.split()[0] for line in ADDRESSES.splitlines()]
    options = [read_address(line.replace(":...@", ":secret@")).options for line in lines]
    assert [found["host"] for found in options] == ["db.example.com", "db1,db2", "/var/run/postgresql"]
    assert options[1]["target_session_attrs"] == "read-write"


def test_the_settings_for_a_pooler_are_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(POOLER, "utf-8")
    settings = load(_env_file=tmp_path / ".env")
    addresses = (settings.database_url, settings.database_listen_url)
    assert [read_address(found.get_secret_value()).options["host"] for found in addresses if found] == [
        "pgbouncer",
        "postgres",
    ]


def test_the_settings_for_web_pages_are_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(ORIGINS, "utf-8")
    assert load(_env_file=tmp_path / ".env").cors_origins == ["https://app.example.com", "http://localhost:3000"]


def test_the_rule_for_a_bucket_exposes_what_a_player_reads() -> None:
    (rule,) = json.loads(CORS_RULE)["CORSRules"]
    assert rule["AllowedOrigins"] == ["*"]
    assert {"Content-Range", "Accept-Ranges", "ETag"} <= set(rule["ExposeHeaders"])


async def test_a_request_id_leads_to_the_log_and_the_job(database_url: str, tmp_path: Path) -> None:
    need("jq")
    settings = {"database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE, "admin_key": ADMIN}
    async with served(cwd=tmp_path, worker_tick_s=0.05, **settings) as gateway:
        async with gateway.client() as client:
            created = await client.post("/v1/videos", json={"prompt": "a boat", "model": "sandbox/testcard"})
            refused = await client.post("/v1/videos", json={"prompt": "a boat", "model": "no/such"})
        video, request = created.json()["id"], created.headers["x-request-id"]
        await gateway.child.line("video ended")  # written after the client may see the end
        await gateway.child.line(refused.headers["x-request-id"])
        (tmp_path / "gateway.log").write_text("\n".join([*gateway.child.err, "no JSON", ""]), "utf-8")
        lines = map(json.loads, gateway.child.err)
        (key,) = {line["key"] for line in lines if line["event"] == "request" and line["request"] == request}
        ids = {"REQUEST": request, "VIDEO": video, "KEY_ID": key, "URL": gateway.url, "GATEWAY_ADMIN_KEY": ADMIN}
        printed = await pages.shell(COMPLAINT, folder=tmp_path, **ids)
    shown = re.search(r"^\{\n.*?^\}\n", printed, re.M | re.S)
    assert shown is not None
    assert json.loads(shown[0])["request_id"] == request
    found = [json.loads(line) for line in printed.replace(shown[0], "").splitlines()]
    assert {"request", "submitted", "video ended"} <= {line["event"] for line in found if line.get("video") == video}
    assert found[-1]["request"] == refused.headers["x-request-id"]


async def test_the_settings_for_a_bucket_lead_to_it(database_url: str, tmp_path: Path) -> None:
    async with open_bucket(tmp_path) as bucket:
        exported = S3.replace("s3://my-bucket", bucket.url)
        exported = exported.replace("https://minio.internal:9000", bucket.environment["AWS_ENDPOINT_URL"])
        look = f"set -a\n{exported}\nAWS_ALLOW_HTTP=true\n{pages.commands(DOCTOR)[0][0]} doctor --json || true"
        checks = await pages.shell(look, folder=tmp_path, GATEWAY_DATABASE_URL=database_url)
    store = [check for check in json.loads(checks)["checks"] if check["name"] == "store"]
    assert [check["status"] for check in store] == ["ok"], store
