"""The web pages from their bytes: what is served, to whom, how it is kept, and that it is what npm published."""

import gzip
import hashlib
import io
import json
import re
import tarfile
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from graphql import OperationDefinitionNode, parse, validate
from starlette.applications import Starlette

from db.live import Live
from db.pool import Pool
from graph.access import core_of
from graph.schema import schema
from rules.access import Role
from server.commands import parser, run_api
from server.demo import tokens_of
from server.pages.files import FILE_BYTES_MAX, Content, Shelf, TooLarge, accepts_gzip
from server.pages.graphiql import OURS, TABS, VENDORED, GraphiQL, tabs_of
from server.settings import Settings, WrongSetting
from tests.rows.district import NOW
from tests.support.station import station
from tests.support.vendored import FOLDER, WrongBytes, packages

TOKENS = {"teacher": "a.b.c"}
HERE = "127.0.0.1"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://sight:Zq8-long-one@db:5432/sightline",
    "REDIS_URL": "redis://cache:6379/0",
    "JWT_SECRET": "correct horse battery staple, 32+ bytes",
}

pytestmark = pytest.mark.feature("002-11")


def caller(logins: Path | None = None, *, peer: str = HERE, host: str = "127.0.0.1:8080") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Starlette(routes=GraphiQL(logins=logins).routes), client=(peer, 50000))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The pages without a demo."""
    async with caller() as opened:
        yield opened


@pytest.fixture
def logins(tmp_path: Path) -> Path:
    """What the demo writes, as far as the page reads it."""
    path = tmp_path / "demo.json"
    path.write_text(json.dumps({"graphqlUrl": "…", "tokens": TOKENS}))
    return path


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href|data-tabs)="([^"]+)"', page)


def asked_as(document: str) -> str:
    (role,) = re.findall(r"^# Ask as: (\w+)$", document, re.MULTILINE)
    return str(role)


# ---------------------------------------------------------------- the page


async def test_the_page_may_load_its_own_files_and_nothing_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/graphiql")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert (page.headers["x-content-type-options"], page.headers["x-frame-options"]) == ("nosniff", "DENY")
    assert page.headers["cache-control"] == "no-cache"
    assert re.findall(r"<style|style=|<script[^>]*>[^<]|\son\w+=|://", page.text) == []
    assert page.text.count("{{") == 0


async def test_every_file_of_the_page_is_there_whole_and_may_be_kept_for_ever(client: httpx.AsyncClient) -> None:
    found = addresses((await client.get("/graphiql")).text)

    assert len(found) == len(VENDORED) + 4
    for address in found:
        answer = await client.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert hashlib.sha256(answer.content).hexdigest()[:12] in address


async def test_who_takes_no_gzip_gets_the_same_bytes_plain(client: httpx.AsyncClient) -> None:
    (address,) = [found for found in addresses((await client.get("/graphiql")).text) if "react.production" in found]

    plain = await client.get(address, headers={"accept-encoding": "identity"})

    assert "content-encoding" not in plain.headers
    assert plain.content == (await client.get(address)).content
    assert plain.headers["vary"] == "accept-encoding"


async def test_what_a_browser_has_already_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/graphiql")

    second = await client.get("/graphiql", headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    other = await client.get("/graphiql", headers={"if-none-match": '"other"'})

    assert (second.status_code, second.content, other.status_code) == (304, b"", 200)
    assert second.headers["content-security-policy"] == first.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/pages/boot.js", "/pages/..%2Fgraphiql.py", "/pages/%2e%2e/files.py", "/pages/", "/graphiql/logins"]
)
async def test_only_the_listed_files_are_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert (answer.status_code, "import" in answer.text) == (404, False)


async def test_a_page_takes_questions_only(client: httpx.AsyncClient) -> None:
    assert (await client.post("/graphiql")).status_code == 405
    assert (await client.head("/graphiql")).status_code == 200


@pytest.mark.parametrize(
    ("header", "is_taken"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0, *", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
    ],
)
def test_gzip_is_sent_to_whom_takes_it(header: str, is_taken: bool) -> None:
    assert accepts_gzip(header) is is_taken


def test_a_file_beyond_the_limit_is_refused_also_when_it_is_packed_small(tmp_path: Path) -> None:
    (tmp_path / "bomb.js.gz").write_bytes(gzip.compress(bytes(FILE_BYTES_MAX + 1)))
    (tmp_path / "large.js").write_bytes(bytes(FILE_BYTES_MAX + 1))

    for name in ("bomb.js.gz", "large.js"):
        with pytest.raises(TooLarge):
            Content.read(tmp_path / name)


def test_a_page_that_names_a_missing_file_does_not_start() -> None:
    with pytest.raises(KeyError):
        Shelf([], folder="pages").page(Content.of("index.html", b'<script src="{{boot.js}}"></script>'))


# ---------------------------------------------------------------- the demo's tokens


async def test_the_demo_offers_its_tokens_on_this_machine_and_no_cache_keeps_them(logins: Path) -> None:
    async with caller(logins) as client:
        page, told = await client.get("/graphiql"), await client.get("/graphiql/logins")

    assert 'data-logins="graphiql/logins"' in page.text
    assert (told.status_code, told.json(), told.headers["cache-control"]) == (200, TOKENS, "no-store")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("192.0.2.7", "127.0.0.1:8080"),  # from elsewhere
        (HERE, "rebound.example:8080"),  # a stranger's page whose name was made to lead here
        (HERE, "127.0.0.1.example"),
        (HERE, "localhost.example"),
        (HERE, "localhost:x@elsewhere.example"),
    ],
)
async def test_nobody_else_is_offered_a_token(logins: Path, peer: str, host: str) -> None:
    async with caller(logins, peer=peer, host=host) as client:
        told = await client.get("/graphiql/logins")

    assert (told.status_code, told.json()) == (404, {})


@pytest.mark.parametrize("host", ["localhost:8080", "[::1]:8080", "127.0.0.1"])
async def test_this_machine_has_several_names(logins: Path, host: str) -> None:
    async with caller(logins, peer="::1", host=host) as client:
        assert (await client.get("/graphiql/logins")).json() == TOKENS


async def test_before_the_demo_is_ready_there_is_nothing_to_offer(tmp_path: Path) -> None:
    async with caller(tmp_path / "demo.json") as client:
        assert (await client.get("/graphiql/logins")).status_code == 404


def test_production_refuses_to_offer_tokens() -> None:
    asked = parser().parse_args(["api", "--logins", "demo.json"])

    # Not by `main`, which would send the log of these tests where a process of ours sends its own.
    with pytest.raises(WrongSetting, match="ENVIRONMENT expects development"):
        run_api(asked, Settings.read(PRODUCTION))


# ---------------------------------------------------------------- on and off


@pytest.mark.parametrize(
    ("environ", "is_on"),
    [
        ({}, True),
        ({"GRAPHIQL": "off"}, False),
        (PRODUCTION, False),
        (PRODUCTION | {"GRAPHIQL": "on"}, True),
    ],
)
def test_it_is_off_in_production_unless_it_is_asked_for(environ: Mapping[str, str], is_on: bool) -> None:
    assert Settings.read(environ).graphiql is is_on


async def test_where_it_is_off_nothing_is_there(pool: Pool, live: Live, redis_url: str) -> None:
    async with station(pool, live, redis_url, GRAPHIQL="off") as place:
        answers = [await place.http.get(path) for path in ("/graphiql", "/graphiql/logins", "/pages/boot.js")]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


@pytest.mark.parametrize(
    ("graphiql", "told"),
    [
        ("on", "Cannot query field 'clasroom' on type 'Query'. Did you mean 'classroom'?"),
        ("off", "Cannot query field 'clasroom' on type 'Query'."),
    ],
)
@pytest.mark.feature("003-63")
async def test_a_mistyped_name_is_told_the_right_one_where_the_schema_is_shown(
    pool: Pool, live: Live, redis_url: str, graphiql: str, told: str
) -> None:
    async with station(pool, live, redis_url, GRAPHIQL=graphiql) as place:
        answer = await place.post(place.token("teacher", Role.TEACHER), '{ clasroom(id: "7b") { name } }')

    assert [error["message"] for error in answer.json()["errors"]] == [told]


async def test_the_schema_is_there_to_be_fetched_as_it_is_committed(pool: Pool, live: Live, redis_url: str) -> None:
    async with station(pool, live, redis_url) as place:
        told = await place.http.get("/schema.graphql")

    assert (told.status_code, told.text) == (200, (FOLDER.parents[2] / "schema.graphql").read_text())


# ---------------------------------------------------------------- the tabs


@pytest.mark.parametrize("path", sorted(TABS.iterdir()), ids=lambda path: path.name)
def test_a_tab_is_valid_against_the_schema_named_and_says_who_may_ask(path: Path) -> None:
    document = parse(path.read_text())

    assert [error.message for error in validate(core_of(schema), document)] == []
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name is not None
    assert asked_as(path.read_text()) in tokens_of(Settings.read({"JWT_SECRET": PRODUCTION["JWT_SECRET"]}), NOW)


def test_the_tabs_have_different_names_and_show_each_kind_of_operation() -> None:
    operations = [parse(tab["query"]).definitions[0] for tab in tabs_of(TABS)]

    assert len({operation.name.value for operation in operations}) == len(operations)  # type: ignore[attr-defined] # as above
    kinds = {operation.operation.value for operation in operations}  # type: ignore[attr-defined] # as above
    assert kinds == {"query", "mutation", "subscription"}


# ---------------------------------------------------------------- what others wrote


def test_every_vendored_file_is_pinned_and_has_the_pinned_bytes() -> None:
    pinned = [file for package in packages() for file in package.files]

    assert {file.name: hashlib.sha256(file.kept()).hexdigest() for file in pinned} == {
        file.name: file.sha256 for file in pinned
    }
    assert {file.path for file in pinned} | {FOLDER / "manifest.json"} == set(FOLDER.iterdir())
    assert {file.path.name for file in pinned if file.path.suffix == ".gz"} == set(VENDORED)
    assert all(package.integrity.startswith("sha512-") for package in packages())


def test_an_archive_with_other_bytes_is_refused(tmp_path: Path) -> None:
    package = next(packages())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as opened:
        for file in package.files:
            said = tarfile.TarInfo(f"package/{file.inside}")
            said.size = 5
            opened.addfile(said, io.BytesIO(b"other"))

    before = {path: path.read_bytes() for path in FOLDER.iterdir()}
    with pytest.raises(WrongBytes):
        package.take(archive.getvalue())

    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == before


def test_the_files_are_named_as_data_of_the_distribution() -> None:
    data = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]

    named = {path for pattern in data["server.pages"] for path in FOLDER.parent.glob(pattern)}
    assert {path for folder in (OURS, FOLDER) for path in folder.rglob("*") if path.is_file()} <= named
