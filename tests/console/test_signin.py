"""Sign-in to the console: sessions, the cookie, where a change may come from, and what a revoked key ends."""

import hashlib
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from console.conftest import Visitor, visitor_at
from harness import ALICE, Running, StartGateway
from money import ADMIN, operator_of

from app.accounts import sessions
from app.accounts.sessions import LINK_LIFETIME, TRIES_A_MINUTE, Holder
from app.console.pages import STATIC
from app.video import SessionKind

pytestmark = pytest.mark.anyio

WRONG = "This key is not valid"


async def test_a_stranger_is_led_to_the_form_and_back(visitor: Visitor) -> None:
    away = await visitor.get("/console/videos?status=failed")
    where = urlsplit(away.headers["location"])
    assert (away.status_code, where.path) == (303, "/console/login")
    assert parse_qs(where.query) == {"next": ["/console/videos?status=failed"]}
    form = await visitor.get(away.headers["location"])
    assert form.status_code == 200
    assert 'name="next" value="/console/videos?status=failed"' in form.text
    assert form.text.count('type="password"') == 1
    there = await visitor.sign_in(ALICE, next="/console/videos?status=failed")
    assert (there.status_code, there.headers["location"]) == (303, "/console/videos?status=failed")


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example/console/",
        "/console//evil.example",
        "/consoles",
        "/console/\\evil.example",
        "/console/login?next=/console",
        "/console/logout",
        "/console/a\tb",
        "/v1/videos",
        "/console/" + "a" * 3_000,
        "javascript:alert(1)",
    ],
)
async def test_the_sign_in_leads_nowhere_else(visitor: Visitor, target: str) -> None:
    there = await visitor.sign_in(ALICE, next=target)
    assert (there.status_code, there.headers["location"]) == (303, "/console")
    assert target not in unescape((await visitor.client.get("/console/login", params={"next": target})).text)


async def test_the_cookie_is_for_the_console_alone(visitor: Visitor, gateway: Running) -> None:
    signed_in = await visitor.sign_in(ALICE)
    cookie = signed_in.headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    assert name == "vgw_console"
    assert {part.strip() for part in rest.split(";")[1:]} == {"HttpOnly", "Path=/console", "SameSite=lax"}
    assert ALICE not in cookie
    value = rest.split(";")[0]
    for path in ("/v1/videos", "/v1/models", "/admin/v1/keys", "/openai/v1/videos"):
        answer = await visitor.get(path, cookie=f"vgw_console={value}")
        assert answer.status_code == 401, path
    page = await visitor.get("/console/nowhere")
    assert page.status_code == 404
    assert ALICE not in page.text
    assert value not in page.text


async def test_over_https_the_cookie_is_secure(start_gateway: StartGateway) -> None:
    async with start_gateway(public_url="https://video.example.com") as gateway:
        visitor = visitor_at(gateway, "https://video.example.com")
        async with visitor.client:
            cookie = (await visitor.sign_in(ALICE)).headers["set-cookie"]
            assert cookie.startswith("__Secure-vgw_console=")
            assert "; Secure" in cookie
            assert (await visitor.get("/console/nowhere")).status_code == 404


async def test_wrong_keys_get_the_same_words_and_no_cookie(visitor: Visitor) -> None:
    texts = set()
    for key in ("", "sk-wrong", "vgw_" + "a" * 49, ADMIN[:-1], "\U0001f600 key", "a" * 10_000):
        answer = await visitor.sign_in(key)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        texts.add(re.sub(r"\s+", " ", answer.text))
    assert len(texts) == 1
    assert WRONG in texts.pop()


async def test_tries_of_one_address_are_limited_for_all_processes(
    visitor: Visitor, gateway: Running, start_gateway: StartGateway
) -> None:
    async with start_gateway(admin_key=ADMIN) as second:
        other = visitor_at(second)
        async with other.client:
            for turn in range(TRIES_A_MINUTE):
                assert (await (visitor, other)[turn % 2].sign_in("sk-wrong")).status_code == 401
            for each in (visitor, other):
                refused = await each.sign_in(ALICE)
                assert refused.status_code == 429
                assert 0 < int(refused.headers["retry-after"]) <= 6
                assert "wait for retry-after" in refused.text
    gateway.clock.advance(60)
    assert (await visitor.sign_in(ALICE)).status_code == 303


async def test_a_change_has_to_come_from_the_console(alice: Visitor) -> None:
    token = await alice.token()
    cases: list[dict[str, str]] = [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin, cross-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ]
    for headers in cases:
        for form in ({"csrf": token}, {"key": ALICE}):
            path = "/console/logout" if "csrf" in form else "/console/login"
            answer = await alice.client.post(path, data=form, headers=headers)
            assert answer.status_code == 403, headers
    for wrong in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "é"}):
        answer = await alice.post("/console/logout", wrong)
        assert answer.status_code == 403, wrong
    assert (await alice.get("/console/nowhere")).status_code == 404
    by_origin = await alice.client.post(
        "/console/logout", data={"csrf": token}, headers={"origin": str(alice.client.base_url).rstrip("/")}
    )
    assert by_origin.status_code == 303


async def test_signing_out_ends_the_session_itself(alice: Visitor) -> None:
    before = alice.client.cookies["vgw_console"]
    answer = await alice.post("/console/logout", {"csrf": await alice.token()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    again = await alice.get("/console/nowhere", cookie=f"vgw_console={before}")
    assert again.status_code == 303
    assert "reason=ended" in again.headers["location"]


async def test_signing_out_everywhere_ends_all_sessions_of_the_key(gateway: Running, alice: Visitor) -> None:
    other = visitor_at(gateway)
    async with other.client:
        await other.sign_in(ALICE)
        await alice.post("/console/logout", {"csrf": await alice.token(), "everywhere": "1"})
        assert (await other.get("/console/nowhere")).status_code == 303


async def test_a_new_sign_in_has_a_new_id_and_ends_the_old_session(alice: Visitor) -> None:
    before = alice.client.cookies["vgw_console"]
    await alice.sign_in(ADMIN)
    assert alice.client.cookies["vgw_console"] != before
    alice.client.cookies.set("vgw_console", before, path="/console")
    assert (await alice.client.get("/console/nowhere", headers={"cookie": f"vgw_console={before}"})).status_code == 303


async def test_a_planted_id_is_no_session(visitor: Visitor) -> None:
    for value in ("", "a", "é", "x" * 5_000, "' or 1=1 --"):
        answer = await visitor.client.get("/console/nowhere", headers={b"cookie": f"vgw_console={value}".encode()})
        assert answer.status_code == 303, value


async def test_a_revoked_key_ends_its_sessions(gateway: Running, visitor: Visitor) -> None:
    async with operator_of(gateway) as admin:
        key = await admin.key()
        assert (await visitor.sign_in(key["key"])).status_code == 303
        assert (await visitor.get("/console/nowhere")).status_code == 404
        await admin.ask("DELETE", f"keys/{key['id']}")
    gateway.gateway.listener.key_changes += 1  # the notice of the database, which comes within a second
    away = await visitor.get("/console/nowhere")
    assert "reason=revoked" in away.headers["location"]
    assert "was revoked" in (await visitor.get(away.headers["location"])).text
    part = await visitor.get("/console/nowhere", **{"hx-request": "true"})
    assert part.status_code == 401
    assert part.headers["hx-redirect"].startswith("/console/login?")


async def test_another_admin_key_ends_the_operators_sessions(
    gateway: Running, operator: Visitor, start_gateway: StartGateway
) -> None:
    cookie = operator.client.cookies["vgw_console"]
    async with start_gateway(admin_key="adm-another-0123456789") as second:
        other = visitor_at(second)
        async with other.client:
            away = await other.get("/console/nowhere", cookie=f"vgw_console={cookie}")
    assert "reason=revoked" in away.headers["location"]
    assert (await operator.get("/console/nowhere")).status_code == 404


async def test_a_named_admin_key_signs_in(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_keys={"dashboard": {"key": "adm-named-0123456789", "role": "read"}}) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            assert (await visitor.sign_in("adm-named-0123456789")).status_code == 303
            assert (await visitor.get("/console/videos")).status_code == 200


async def test_a_session_ends_when_it_is_not_used_and_after_a_week(gateway: Running, alice: Visitor) -> None:
    for _ in range(14):  # seven days in steps shorter than the session's life
        gateway.clock.advance(43_200 - 1)
        answer = await alice.get("/console/nowhere")
    assert answer.status_code == 404
    gateway.clock.advance(3_600)
    assert (await alice.get("/console/nowhere")).status_code == 303
    await alice.sign_in(ALICE)
    gateway.clock.advance(43_201)
    assert (await alice.get("/console/nowhere")).status_code == 303


async def test_a_link_signs_in_once_and_for_ten_minutes(gateway: Running, visitor: Visitor) -> None:
    async def link() -> str:
        holder = Holder(SessionKind.key, gateway.gateway.authenticator.hash(ALICE))
        async with gateway.gateway.db.reading() as connection:
            return await sessions.make_link(connection, holder, now=gateway.clock())

    code = await link()
    page = await visitor.get(f"/console/login?code={code}")
    assert "data-submit-at-once" in page.text
    assert (await visitor.post("/console/login", {"code": code})).status_code == 303
    assert (await visitor.get("/console/nowhere")).status_code == 404
    assert "data-submit-at-once" not in (await visitor.get(f"/console/login?code={code}")).text
    again = await visitor.post("/console/login", {"code": code})
    assert again.status_code == 401
    assert "was used already" in again.text
    old = await link()
    gateway.clock.advance(LINK_LIFETIME.total_seconds())
    assert (await visitor.post("/console/login", {"code": old})).status_code == 401


async def test_what_is_no_form_is_refused(visitor: Visitor, alice: Visitor) -> None:
    same = {"sec-fetch-site": "same-origin"}
    for body, status in ((b"key=" + b"a" * 300_000, 413), (b"\xff=\xff", 400), (b"a=1&" * 500, 400), (b"", 401)):
        answer = await visitor.client.post("/console/login", content=body, headers=same)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    files = await alice.client.post("/console/logout", files={"csrf": b"x"}, headers=same)
    assert files.status_code == 403


async def test_ended_sessions_are_purged(gateway: Running, alice: Visitor) -> None:
    await alice.sign_in("sk-wrong")
    gateway.clock.advance(8 * 86_400)
    await gateway.worker.purge()
    left = {}
    for table in ("console_sessions", "console_links", "request_rates"):
        left[table] = await gateway.gateway.db.one(f"select count(*) from {table}".encode(), {})
    assert {row["count"] for row in left.values() if row} == {0}


async def test_every_page_has_its_headers(visitor: Visitor, alice: Visitor) -> None:
    for page in (await visitor.get("/console/login"), await alice.get("/console/nowhere")):
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-request-id"]
        assert not re.search(r"\son\w+=|<style|<script>|javascript:", page.text)
        for address in re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text):
            file = await visitor.get(address)
            assert file.status_code == 200
            assert file.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_what_is_not_ours_is_unchanged() -> None:
    said = (STATIC / "README.md").read_text("utf-8")
    (file,) = STATIC.glob("htmx-*.min.js")
    assert f"`{file.name}`" in said
    assert f"`{hashlib.sha256(file.read_bytes()).hexdigest()}`" in said


async def test_without_a_console_there_is_nothing(start_gateway: StartGateway) -> None:
    async with start_gateway(console=False) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            for path in ("/console", "/console/login", "/console/static/console.css"):
                assert (await visitor.get(path)).status_code == 404


async def test_the_console_works_under_a_sub_path(gateway: Running) -> None:
    visitor = visitor_at(gateway, root="/video")
    async with visitor.client:
        away = await visitor.get("/video/console")
        assert away.headers["location"] == "/video/console/login?next=/video/console"
        signed_in = await visitor.sign_in_at("/video", ALICE, next="/video/console/videos")
        assert signed_in.headers["location"] == "/video/console/videos"
        assert "Path=/video/console" in signed_in.headers["set-cookie"]
        page = await visitor.get("/video/console/nowhere")
        assert page.status_code == 404
        assert '"/video/console/static/' in page.text
