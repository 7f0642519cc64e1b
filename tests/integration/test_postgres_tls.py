"""The words about TLS in DATABASE_URL, at a pgbouncer that speaks it: what connects, what is said where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from streams.errors import DatabaseError, SettingsError, StreamsError
from streams.postgres.database import Database
from tests.acceptance.commands import free_port
from tests.support.pgbouncer import Pgbouncer, needed, pgbouncer

pytestmark = needed


@pytest.fixture
def pooler(dsn: str, tmp_path: Path) -> Iterator[Pgbouncer]:
    """One with a certificate for 127.0.0.1 by ``ca.pem``; ``other.pem`` is somebody else's authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    mine = authority.issue_cert("me@example.com")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "mine.pem")
    mine.private_key_pem.write_to_path(tmp_path / "mine.key")
    (tmp_path / "server.key").chmod(0o644)
    tls = {
        "client_tls_sslmode": "require",
        "client_tls_key_file": tmp_path / "server.key",
        "client_tls_cert_file": tmp_path / "server.pem",
        "client_tls_ca_file": tmp_path / "ca.pem",
    }
    with pgbouncer(dsn, tmp_path, **tls) as made:
        yield made


async def refusal(url: str) -> StreamsError | None:
    database = Database(url, "mine", 1)
    try:
        await database.start(timeout=0.5)
    except StreamsError as error:
        return error
    finally:
        await database.close()
    return None


@pytest.mark.parametrize(
    "words",
    [
        "", "?sslmode=prefer", "?sslmode=allow", "?sslmode=require", "?sslmode=no-verify", "?ssl=true",
        "?sslmode=verify-ca&sslrootcert=CA", "?sslmode=verify-full&sslrootcert=CA",
        "?sslmode=require&channel_binding=require&sslrootcert=CA", "?sslmode=prefer&channel_binding=prefer",
        "?sslmode=verify-full&sslrootcert=CA&sslcert=MINE.pem&sslkey=MINE.key",
        "?sslmode=require&ssl_min_protocol_version=TLSv1.2",
    ],
)  # fmt: skip
async def test_it_connects(pooler: Pgbouncer, tmp_path: Path, words: str) -> None:
    words = words.replace("CA", str(tmp_path / "ca.pem")).replace("MINE", str(tmp_path / "mine"))
    assert await refusal(f"{pooler.url}{words}") is None


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ("?sslmode=disable", DatabaseError, "SSL required"),
        ("?sslmode=verify-full&sslrootcert=OTHER", DatabaseError, "not trusted.*sslrootcert"),
        ("?sslmode=verify-ca&sslrootcert=OTHER", DatabaseError, "not trusted"),
        ("?sslrootcert=system", DatabaseError, "not trusted"),
        ("?sslmode=require&channel_binding=require", DatabaseError, "not trusted"),
        ("?sslmode=verify-full&sslrootcert=NOTHING", SettingsError, "nothing.pem, which cannot be read"),
        ("?sslmode=verify-full&sslrootcert=KEY", SettingsError, "server.key, which holds no certificate"),
        ("?sslmode=require&sslcert=CA&sslkey=KEY", SettingsError, "do not fit together"),
        ("?sslmode=require&sslcert=NOTHING", SettingsError, "sslcert names"),
        ("?sslnegotiation=direct", SettingsError, "direct TLS"),
    ],
)
async def test_it_does_not(pooler: Pgbouncer, tmp_path: Path, words: str, kind: type[StreamsError], said: str) -> None:
    for name, file in (("OTHER", "other.pem"), ("NOTHING", "nothing.pem"), ("KEY", "server.key"), ("CA", "ca.pem")):
        words = words.replace(name, str(tmp_path / file))
    error = await refusal(f"{pooler.url}{words}")
    assert isinstance(error, kind)
    with pytest.raises(kind, match=said):
        raise error


async def test_the_default_authority_is_named_where_it_is_missing(
    pooler: Pgbouncer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    error = await refusal(f"{pooler.url}?sslmode=verify-full")
    assert isinstance(error, SettingsError)
    assert ".postgresql/root.crt" in str(error)
    assert "sslrootcert=system" in str(error)


DEMANDING = [
    "?sslmode=require", "?ssl=true", "?sslmode=no-verify", "?sslmode=verify-full&sslrootcert=CA",
    "?sslmode=prefer&channel_binding=require&sslrootcert=CA", "?sslrootcert=system",
]  # fmt: skip


@pytest.mark.parametrize("words", DEMANDING)
async def test_a_server_without_tls_is_refused_at_once(dsn: str, tmp_path: Path, words: str) -> None:
    """The tests' Postgres has none. It will have none in 20 s either."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    error = await refusal(f"{dsn}{words.replace('CA', str(tmp_path / 'ca.pem'))}")
    assert isinstance(error, DatabaseError)
    assert "offers no TLS, which DATABASE_URL asks for (sslmode): switch it on" in str(error)  # not: cannot be reached


@pytest.mark.parametrize("words", ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=disable"])
async def test_a_server_without_tls_will_do_where_none_is_asked_for(dsn: str, words: str) -> None:
    assert await refusal(f"{dsn}{words}") is None


async def test_the_environment_may_ask_for_tls_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("PGSSLMODE", "require")
        assert "offers no TLS" in str(await refusal(dsn))


async def test_while_one_of_the_hosts_is_away_it_may_be_the_one_with_tls(dsn: str) -> None:
    parts = urlsplit(dsn)
    both = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{free_port()},127.0.0.1:{parts.port}")
    assert "cannot be reached" in str(await refusal(f"{both.geturl()}?sslmode=require"))
