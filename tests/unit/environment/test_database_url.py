"""DATABASE_URL as people and providers write it: understood, or a sentence that says how, without a secret in it."""

from __future__ import annotations

import itertools
import re
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.environment.database_url import Address, AddressError, clean, parse
from streams.environment.database_words import INSTEAD, PASSED_OVER, SSL, VALUES
from streams.errors import SettingsError
from streams.postgres.database import Database
from streams.settings import load_settings
from streams.ui.terminal.config import as_shown, redacted

SECRET = "s3cretX"
HOST = "db.example:5432"
#: What stands in a URL's way: RFC 3986's reserved characters, and a few more that people have in passwords.
RESERVED = ":/?#[]@!$&'()*+,;="
OTHERS = ' %"<>\\^`{|}~-._é日\t\n'
#: The characters that a password must not hold as they are.
ESCAPED = "/?#[]@ "


def refused(url: str) -> str:
    """The sentence, which all that reads the address must end with."""
    with pytest.raises(AddressError) as error:
        parse(url)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: ") as settings:
        load_settings(database_url=url)
    assert settings.value.exit_code == 2
    assert str(settings.value) == f"DATABASE_URL: {sentence}"
    assert settings.value.__cause__ is None
    return sentence


# -- passwords

PIECES = [
    *(
        template.replace("_", c)
        for c in RESERVED + OTHERS
        for template in (f"_{SECRET}", f"12_{SECRET}", f"{SECRET}_a")
    ),
    *(f"{a}{SECRET}{b}" for a, b in itertools.product("/?#@", "/?#@")),
]


@pytest.mark.parametrize("password", PIECES, ids=repr)
def test_a_password_written_as_it_must_be(password: str) -> None:
    if "\n" in password or "\t" in password:
        assert parse(f"postgresql://u:{quote(password, safe='')}@{HOST}/d").password == password
    for url in (
        f"postgresql://u:{quote(password, safe='')}@{HOST}/d",
        f"postgresql://{HOST}/d?user=u&password={quote(password, safe='')}",
        f"jdbc:postgresql://{HOST}/d?password={quote(password, safe='')}&user=u",
    ):
        address = parse(url)
        assert (address.user, address.password, address.place) == ("u", password, f"{HOST}/d")
        assert SECRET not in repr(address) + address.place + str(redacted(url)) + redacted(url, hidden="")


@pytest.mark.parametrize("password", PIECES, ids=repr)
def test_a_password_written_as_it_is(password: str) -> None:
    """Taken for what it is, or refused with the character and how to write it."""
    url = f"postgresql://u:{password}@{HOST}/d"
    if found := [c for c in ESCAPED if c in password and not any(ord(d) < 32 for d in password)]:
        sentence = refused(url)
        assert SECRET not in sentence
        assert all(f"%{ord(c):02X}" in sentence for c in found) or "%25" in sentence
    elif "%" in password or any(ord(c) < 32 for c in password):
        assert SECRET not in refused(url)
    else:
        assert parse(url).password == password
        assert parse(url).place == f"{HOST}/d"


ANYTHING = st.text(st.sampled_from(RESERVED + OTHERS + "ab19"), max_size=12)


def shown_by_all(url: str) -> str:
    """All that the program would say of an address, or of what is wrong with it: in settings, sentences and reprs."""
    said = [redacted(url), redacted(url, hidden="")]
    try:
        settings = load_settings(database_url=url)
    except SettingsError as error:
        return " ".join([*said, str(error), repr(error), repr(error.__cause__)])
    database = Database(settings.database_dsn(), "s", 1)
    dumped = f"{settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    return " ".join([*said, dumped, str(as_shown(settings, "database_url")), database.place, repr(vars(database))])


@hypothesis.settings(max_examples=60)
@given(
    before=ANYTHING, after=ANYTHING, rest=st.sampled_from(["/d", "", "/d?sslmode=require", "/d?user=u&options=x%3Dy"])
)
@example(before="12/", after="", rest="/d")
@example(before="12?", after="", rest="/d")
@example(before="a@", after="@b", rest="/d?application_name=x")
@example(before="", after="#", rest="")
@example(before="[", after="]", rest="/d")
def test_no_password_is_told_whatever_is_in_it(before: str, after: str, rest: str) -> None:
    for url in (
        f"postgresql://u:{before}{SECRET}{after}@{HOST}{rest}",
        f"postgresql://{HOST}/d?user=u&password={before}{SECRET}{after}",
        f"postgresql://u:{quote(before + SECRET + after, safe='')}@{HOST}{rest}",
        f"  'postgresql+asyncpg://u:{before}{SECRET}{after}@{HOST}{rest}' ",
        f"host={HOST} password={before}{SECRET}{after} user=u",
        f"postgresql:/u:{before}{SECRET}{after}@{HOST}{rest}",
        f"mysql://u:{before}{SECRET}{after}@{HOST}{rest}",
        f"postgresql://u:{before}{SECRET}{after}@one:1,[::1]:2,three:{rest}",
    ):
        told = shown_by_all(url)
        assert SECRET not in told, url


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://h/d?{text}", f"postgresql://h/d?options={text}"):
        try:
            address = parse(url)
        except AddressError as error:
            assert "\n" not in str(error)
        else:
            assert parse(clean(url)) == address


# -- what is understood

UNDERSTOOD: dict[str, dict[str, Any]] = {
    "postgresql://u:p@h:1/d": {"hosts": (("h", 1),), "user": "u", "password": "p", "database": "d"},
    "postgres://u:p@h/d": {"hosts": (("h", 5432),)},
    "POSTGRESQL://u:p@h/d": {"hosts": (("h", 5432),)},
    "postgresql+asyncpg://u:p@h/d": {"hosts": (("h", 5432),)},
    "postgresql+psycopg2://u:p@h/d": {"hosts": (("h", 5432),)},
    "postgres+pg8000://u:p@h/d": {"user": "u"},
    "jdbc:postgresql://h:2/d?user=u&password=p": {"hosts": (("h", 2),), "user": "u", "password": "p"},
    " postgresql://u:p@h/d ": {"database": "d"},
    '"postgresql://u:p@h/d"': {"database": "d"},
    "'postgresql://u:p@h/d'": {"database": "d"},
    "postgresql://u:p@h/d\n": {"database": "d"},
    "postgresql://": {"hosts": (), "user": None, "database": None},
    "postgresql:///d": {"hosts": (), "database": "d"},
    "postgresql://h": {"hosts": (("h", 5432),), "database": None},
    "postgresql://h/": {"database": None},
    "postgresql://h:/d": {"hosts": (("h", 5432),)},
    "postgresql://u@:5433/d": {"hosts": (("localhost", 5433),)},
    "postgresql://u:@h/d": {"user": "u", "password": None},
    "postgresql://u:a:b@h/d": {"password": "a:b"},
    "postgresql://me%40corp:p@h/my%20base": {"user": "me@corp", "database": "my base"},
    "postgresql://u:p@[::1]:5/d": {"hosts": (("::1", 5),)},
    "postgresql://u:p@[fe80::1%25eth0]/d": {"hosts": (("fe80::1%25eth0", 5432),)},
    "postgresql://u:p@a:1,b:2,c/d": {"hosts": (("a", 1), ("b", 2), ("c", 5432))},
    "postgresql://u:p@[::1],b:2/d": {"hosts": (("::1", 5432), ("b", 2))},
    "postgresql://u@%2Fvar%2Frun%2Fpostgresql/d": {"hosts": (("/var/run/postgresql", 5432),)},
    "postgresql://u@/d?host=/var/run/postgresql": {"hosts": (("/var/run/postgresql", 5432),)},
    "postgresql:///d?host=/run/postgresql&port=6543&user=u": {"hosts": (("/run/postgresql", 6543),), "user": "u"},
    "postgresql:///d?host=a,b&port=1,2": {"hosts": (("a", 1), ("b", 2))},
    "postgresql:///d?host=a,b": {"hosts": (("a", 5432), ("b", 5432))},
    "postgresql://h:7/?dbname=d": {"hosts": (("h", 7),), "database": "d"},
    "postgresql://h/d?user=u&password=p%26q": {"user": "u", "password": "p&q"},
    "postgresql://h/d?password=p+q": {"password": "p+q"},
    "postgresql://bücher.example/d": {"hosts": (("bücher.example", 5432),)},
    "postgresql://my_db.internal/d": {"hosts": (("my_db.internal", 5432),)},
    "postgresql://h/d?sslmode=verify-full&sslrootcert=/ca.pem": {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
    "postgresql://h/d?sslrootcert=system": {"sslmode": "verify-full", "sslrootcert": "system"},
    "postgresql://h/d?sslmode=require&channel_binding=require": {"sslmode": "require", "channel_binding": "require"},
    "postgresql://h/d?sslcert=/c&sslkey=/k&sslcrl=/l": {"driver": {"sslcert": "/c", "sslkey": "/k", "sslcrl": "/l"}},
    "postgresql://h/d?connect_timeout=7": {"connect_timeout": 7.0},
    "postgresql://h/d?connect_timeout=0": {"connect_timeout": None},
    "postgresql://h/d?application_name=mine": {"application_name": "mine"},
    "postgresql://h/d?ApplicationName=mine": {"application_name": "mine"},
    "postgresql://h/d?target_session_attrs=read-write": {"driver": {"target_session_attrs": "read-write"}},
    "postgresql://h/d?options=-c%20jit%3Don": {"settings": {"jit": "on"}, "startup_options": None},
    "postgresql://h/d?options=-cjit%3Don%20--lock-timeout%3D5s": {"settings": {"jit": "on", "lock_timeout": "5s"}},
    "postgresql://h/d?options=-c+work_mem%3D64MB": {"settings": {"work_mem": "64MB"}},
    "postgresql://h/d?options=-c%20timezone%3DCET": {"settings": {}},
    "postgresql://h/d?options=endpoint%3Dep-1": {"startup_options": "endpoint=ep-1"},
    "postgresql://h/d?options=reference%3Dx%20-cjit%3D1": {"startup_options": "reference=x", "settings": {"jit": "1"}},
    "postgresql://h/d?": {"database": "d"},
    # Providers' own.
    "postgresql://neondb_owner:npg_x@ep-a-1.eu.aws.neon.tech/neondb?sslmode=require&channel_binding=require": {},
    "postgres://postgres.ref:p@aws-0-eu.pooler.supabase.com:5432/postgres?sslmode=require&supa=base-pooler.x": {},
    "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1": {},
    "postgresql://doadmin:p@db-1.ondigitalocean.com:25060/defaultdb?sslmode=require": {},
    "postgres://avnadmin:p@pg-1.aivencloud.com:12345/defaultdb?sslmode=require": {},
    "postgres://u:p@ec2-1.compute-1.amazonaws.com:5432/d4?ssl=true": {"sslmode": "require"},
    "postgresql://me%40server:p@server.postgres.database.azure.com/postgres?sslmode=require": {},
    "postgresql://u:p@h/d?sslmode=no-verify&uselibpqcompat=true": {"sslmode": "no-verify"},
    "postgresql://u:p@h/d?serverVersion=16&charset=utf8": {},
    "postgresql://u:p@h/d?pool=5&timeout=5000&prepared_statements=false": {},
    "postgresql://u:p@h/d?keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3": {},
    "postgresql://u:p@h/d?pool_max_conns=10&pool_max_conn_lifetime=1h&default_query_exec_mode=exec": {},
    "postgresql://u:p@h/d?gssencmode=disable&client_encoding=UTF8": {},
}  # fmt: skip


@pytest.mark.parametrize("url", UNDERSTOOD, ids=lambda url: url.strip()[:60])
def test_what_is_understood(url: str) -> None:
    address = parse(url)
    for name, value in UNDERSTOOD[url].items():
        assert getattr(address, name) == value
    assert load_settings(database_url=url).database_dsn() == clean(url)
    assert address.reached


@pytest.mark.parametrize("word", sorted(PASSED_OVER))
def test_words_of_others_are_passed_over(word: str) -> None:
    assert parse(f"postgresql://u:p@h:1/d?{word}=5") == parse("postgresql://u:p@h:1/d")


@pytest.mark.parametrize(("word", "value"), [(word, value) for word, values in VALUES.items() for value in values])
def test_words_that_mean_something_have_their_values(word: str, value: str) -> None:
    assert isinstance(parse(f"postgresql://h/d?{word}={value}"), Address)
    assert f"{word} is one of" in refused(f"postgresql://h/d?{word}={value}x")


@pytest.mark.parametrize(("value", "mode"), SSL.items())
def test_ssl_is_a_word_for_sslmode(value: str, mode: str) -> None:
    assert parse(f"postgresql://h/d?ssl={value}").sslmode == mode


# -- what is refused

REFUSED = {
    "": "postgresql://",
    "h": "postgresql://",
    "host=h user=u password=s3cretX": "postgresql://user:password@host:port/database",
    "mysql://u:s3cretX@h/d": "begins with postgresql://",
    "psql postgresql://u:s3cretX@h/d": "begins with postgresql://",
    "postgis://u:s3cretX@h/d": "begins with postgresql://",
    "postgresql:/u:s3cretX@h/d": "begins with postgresql://",
    "jdbc:postgresql:d": "begins with postgresql://",
    "postgresql://u:s3cretX@h:port/d": "not a number",
    "postgresql://u:s3cretX@h:0/d": "not a number",
    "postgresql://u:s3cretX@h:65536/d": "not a number",
    "postgresql://u:s3cretX@h:5432s3cretX/d": "not a number",
    "postgresql://u:s3cretX/d": "not a number",
    "postgresql://u:s3cretX@h:5432:5433/d": "not a number",
    "postgresql://u:s3cretX@a,,b/d": "host",
    "postgresql://u:s3cretX@${DB_HOST}/d": "host",
    "postgresql://u:s3cretX@<host>/d": "host",
    "postgresql://u:s3cretX@a..b/d": "host",
    "postgresql://u:s3cretX@" + "a" * 64 + "/d": "host",
    "postgresql://u:s3cretX@[::1/d": "IPv6",
    "postgresql://u:s3cretX@::1:5432/d": "not a number",
    "postgresql://u:s3cretX@[::1]5432/d": "IPv6",
    "postgresql://postgres:[YOUR-PASSWORD]@db.ref.supabase.co:5432/postgres": "[ as %5B",
    "postgresql://u:s3cretX@h/my base": "%20",
    "postgresql://u:s3cretX@h/d#frag": "%23",
    "postgresql://u:s3cretX%@h/d": "%25",
    "postgresql://u:s3cretX%ff@h/d": "UTF-8",
    "postgresql://u:s3cretX%00@h/d": "%00",
    "postgresql://u:s3cretX\udcff@h/d": "UTF-8",
    "postgresql://u:s3\ncretX@h/d": "control",
    "postgresql://h/d?user=me@corp&password=s3cretX": "an @",
    "postgresql://h/d?password=ab&s3cretX=1": "%26",
    "postgresql://h/d?password=ab&s3cretX": "name=value",
    "postgresql://h/d?s3cretX": "name=value",
    "postgresql://h/d?sslpassword=ab&s3cretX=1": "%26",
    "postgresql://h/d?frobnicate=1": "the word frobnicate is not known",
    "postgresql://h/d?statement_timeout=5": "options=-c%20",
    "postgresql://h/d?sslmode=verify": "sslmode is one of",
    "postgresql://h/d?ssl=perhaps": "ssl is true or false",
    "postgresql://h/d?sslmode=require&sslrootcert=system": "verify-full",
    "postgresql://h/d?sslmode=disable&channel_binding=require": "channel_binding=require cannot be kept",
    "postgresql://h/d?sslmode=no-verify&channel_binding=require": "verify-full",
    "postgresql://h/d?channel_binding=perhaps": "channel_binding is one of",
    "postgresql://h/d?connect_timeout=soon": "connect_timeout",
    "postgresql://h/d?target_session_attrs=writer": "target_session_attrs is one of",
    "postgresql://h/d?host=a,b&port=1,2,3": "as many ports as hosts",
    "postgresql://h/d?options=-c%20search_path%3Dx": "SINK_SCHEMA",
    "postgresql://h/d?options=-c%20jit": "-c name=value",
    "postgresql://h/d?options=-c%20%27": "quote",
    "postgresql://h/d?schema=public": "SINK_SCHEMA",
    "postgresql://h/d?currentSchema=mine": "SINK_SCHEMA",
    "postgresql://h/d?service=mine": "write the host",
    "postgresql://h/d?gssencmode=require": "gssencmode=prefer",
    "postgresql://h/d?require_auth=scram-sha-256": "verify-full",
    "postgresql://h/d?replication=database": "leave it out",
    "postgresql://h/d?client_encoding=latin1": "UTF-8",
}  # fmt: skip


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: repr(url)[:60])
def test_what_is_refused(url: str) -> None:
    if not url:
        with pytest.raises(AddressError):
            parse(url)
        return
    sentence = refused(url)
    assert REFUSED[url] in sentence
    assert SECRET not in sentence


@pytest.mark.parametrize("word", sorted(INSTEAD))
def test_what_cannot_be_kept_says_what_to_do(word: str) -> None:
    sentence = refused(f"postgresql://h/d?{word}=require")
    assert INSTEAD[word] in sentence


def test_there_are_enough_of_them() -> None:
    words = len(PASSED_OVER) + sum(map(len, VALUES.values())) * 2 + len(SSL) + len(INSTEAD)
    assert len(PIECES) * 4 + len(UNDERSTOOD) + len(REFUSED) + words > 300
    assert re.fullmatch(r"[a-z0-9_]+", "".join(PASSED_OVER))


def test_a_socket_is_this_machine() -> None:
    assert parse("postgresql:///d").reached == [("localhost", 5432)]
    assert parse("postgresql:///d?host=/run/postgresql,db.example&port=1,2").reached == [
        ("localhost", 1),
        ("db.example", 2),
    ]
