"""The words that may stand in the query of a database's address: what each means to us. Pure: tables and nothing else.

They come from libpq, from the drivers of other languages, and from what providers of Postgres hand out. Names are in
small letters here, as they are compared.
"""

from __future__ import annotations

from typing import Final

#: Handed to the driver as they are.
DRIVER: Final = (
    "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "passfile", "krbsrvname", "target_session_attrs",
)  # fmt: skip
#: What decides about TLS and cannot be passed over where it is wrong: the words and the values that they may have.
VALUES: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full", "no-verify"),
    "channel_binding": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
#: ``ssl=…`` of JDBC, node-postgres, Rails and SQLAlchemy, as the sslmode that libpq takes it for.
SSL: Final = {
    "true": "require", "1": "require", "on": "require", "yes": "require",
    "false": "disable", "0": "disable", "off": "disable", "no": "disable",
    **{mode: mode for mode in VALUES["sslmode"]},
}  # fmt: skip

#: Words that change nothing here: how the client's own pool, cache, sockets or ORM work.
PASSED_OVER: Final = frozenset((
    # libpq. Keepalives are set by us; GSSAPI encryption, the load's balance and SNI are not needed.
    "fallback_application_name", "sslcompression", "sslsni", "gsslib", "gssdelegation", "load_balance_hosts",
    "tcp_user_timeout", "min_protocol_version", "max_protocol_version", "sslkeylogfile",
    # Prisma, Supabase, Vercel
    "pgbouncer", "connection_limit", "socket_timeout", "single_use_connections", "supa", "workaround",
    # node-postgres, postgres.js
    "uselibpqcompat", "max", "min", "prepare", "idle_timeout", "idletimeoutmillis", "connectiontimeoutmillis",
    "max_lifetime", "keepalive", "fetch_types",
    # JDBC, Npgsql
    "binarytransfer", "logintimeout", "sockettimeout", "connecttimeout", "tcpkeepalive", "loglevel", "loggerlevel",
    "rewritebatchedinserts", "rewritebatchedstatements", "reconnect", "autoreconnect", "stringtype",
    "defaultrowfetchsize", "pooling", "assumeminserverversion", "adaptivefetch", "targetservertype",
    # lib/pq and pgx of Go
    "binary_parameters", "default_query_exec_mode", "description_cache_capacity", "disable_prepared_binary_result",
    # Rails, Django, SQLAlchemy, Doctrine, asyncpg
    "adapter", "timeout", "checkout_timeout", "reaping_frequency", "advisory_locks", "min_messages", "encoding",
    "conn_max_age", "conn_health_checks", "disable_server_side_cursors", "max_overflow", "async_fallback",
    "serverversion", "server_version", "charset", "command_timeout", "max_cached_statement_lifetime",
    "max_cacheable_statement_size", "min_size", "max_size", "max_inactive_connection_lifetime",
))  # fmt: skip
PASSED_PREFIXES: Final = (
    "keepalives",
    "pool",
    "prepare_",
    "prepared",
    "preparethreshold",
    "statement_cache",
    "max_conn",
)
#: Words that are passed over where they have these values, and refused where they ask for what we cannot keep.
ONLY_WITH: Final = {
    "gssencmode": ("disable", "prefer"),
    "sslcertmode": ("allow",),
    "client_encoding": ("utf8", "utf-8", "unicode", "auto"),
    "replication": ("false", "off", "no", "0"),
    "sslaccept": ("accept_invalid_certs",),
}
#: Words that are refused, and what to do instead.
INSTEAD: Final = {
    "schema": "set SINK_SCHEMA instead",
    "currentschema": "set SINK_SCHEMA instead",
    "search_path": "set SINK_SCHEMA instead",
    "service": "write the host, the user and the database into the address",
    "servicefile": "write the host, the user and the database into the address",
    "hostaddr": "write the address as the host",
    "gssencmode": "write gssencmode=prefer: the driver cannot encrypt by GSSAPI",
    "sslcertmode": "leave it out: sslcert and sslkey name the certificate that is shown",
    "client_encoding": "leave it out: it is always UTF-8",
    "replication": "leave it out: rows are written, nothing is replicated",
    "sslaccept": "write sslmode=verify-full",
    "require_auth": "leave it out: the driver cannot keep it; sslmode=verify-full proves who the server is",
    "requirepeer": "leave it out: the driver cannot keep it",
    "sslfactory": "write sslmode and sslrootcert",
    "sslidentity": "write sslcert and sslkey",
}

#: Settings in ``options`` that are not the user's to choose: the program is right only with its own.
OURS: Final = frozenset(("timezone", "client_encoding", "standard_conforming_strings"))


def is_passed_over(word: str, value: str) -> bool:
    """Return True if the word, with this value, changes nothing for us: it is passed over."""
    return word in PASSED_OVER or word.startswith(PASSED_PREFIXES) or value.lower() in ONLY_WITH.get(word, ())
