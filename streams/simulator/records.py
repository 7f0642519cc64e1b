"""The records that generated accounts write: their contents by collection, in the API's JSON form.

The texts and shapes are the ones that break pipelines: emoji, right-to-left, NUL, empty, long, deep, bytes, links.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import Any, Final

from streams.simulator.repository import CID_PREFIX, cid_text

Record = dict[str, Any]

LIKE: Final = "app.bsky.feed.like"
FOLLOW: Final = "app.bsky.graph.follow"
POST: Final = "app.bsky.feed.post"
REPOST: Final = "app.bsky.feed.repost"
PROFILE: Final = "app.bsky.actor.profile"

#: Collections whose only record has the key ``self``.
SINGLETONS: Final = frozenset({PROFILE, "app.bsky.labeler.service", "chat.bsky.actor.declaration"})

TEXTS: Final = (
    "good morning",
    "just setting up my sky",
    "this is fine",
    "new blog post, link below",
    "does anyone else see this?",
    "Grüße aus Köln, schöne Straße!",
    "今日はとてもいい天気ですね。散歩に行きました。",
    "오늘도 좋은 하루 보내세요",
    "Привет, мир!",
    "🦋 hello 👩\u200d👩\u200d👧\u200d👦 world 🏳️\u200d🌈 🇩🇪 👍🏽",
    "🧵 1/12 a thread about nothing in particular, but with rather more words than most of them have",
    "مرحبا بالعالم، كيف حالكم اليوم؟",
    "שלום עולם",
    "mixed العربية and English \u202eoverride\u202c done",
    "a NUL \x00 in the middle",
    "\x00",
    "control \x01\x02\x1b[31mred\x1b[0m\x7f bell\x07",
    "",
    " ",
    "\n\n\n",
    "\ufeffBOM first",
    'quotes " and \\ backslashes \\u0000 \\n',
    "<script>alert(1)</script> & <b>",
    "'; DROP TABLE records; --",
    "a,b;c\td\r\ne",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "\U0010ffff \uffff \ue000 private",
    '{"$link": "not a link"}',
    "long " * 580,
    "ह" * 967,
    "x" * 300,
)
#: Most posts are ordinary; the hostile texts come often enough to be in every run of some hundred posts.
_ORDINARY: Final = 9

_BLOB_CIDS: Final = tuple(
    cid_text(b"\x01\x55\x12\x20" + bytes(Random(n).getrandbits(8) for _ in range(32)))  # noqa: S311 (fixed blobs)
    for n in range(8)
)


class RecordMaker:
    """Makes records that refer to the accounts and posts made before. Seeded."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._posts: list[tuple[str, str]] = [
            ("at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3kztiuvx7zs2n", cid_text(CID_PREFIX + bytes(32)))
        ]
        self._next = 0
        self._others: tuple[tuple[str, Callable[[str, str], Record]], ...] = (
            (PROFILE, self._profile),
            ("app.bsky.graph.block", self._subject_did("app.bsky.graph.block")),
            ("app.bsky.graph.listitem", self._list_item),
            (PROFILE, self._profile),
            ("app.bsky.graph.list", self._list),
            ("app.bsky.feed.threadgate", self._thread_gate),
            ("com.example.deepNested", self._nested),
            ("app.bsky.feed.generator", self._feed_generator),
            ("app.bsky.feed.postgate", self._post_gate),
            ("app.bsky.graph.starterpack", self._starter_pack),
            ("app.bsky.graph.listblock", self._subject_uri("app.bsky.graph.listblock")),
            ("app.bsky.labeler.service", self._labeler),
            ("app.bsky.graph.verification", self._verification),
            ("chat.bsky.actor.declaration", self._declaration),
            ("xyz.statusphere.status", self._status),
            ("com.example.blank", lambda _did, _time: {"$type": "com.example.blank"}),
        )
        self._makers: dict[str, Callable[[str, str], Record]] = {
            **dict(self._others),
            LIKE: self._subject_post(LIKE),
            REPOST: self._subject_post(REPOST),
            FOLLOW: self._subject_did(FOLLOW),
            POST: self._post,
        }
        self._turn = 0

    def remember_post(self, uri: str, cid: bytes) -> None:
        """Offer a post for later records to like, repost and answer."""
        if len(self._posts) < 2000:
            self._posts.append((uri, cid_text(cid)))
        else:
            self._posts[self._next] = (uri, cid_text(cid))
            self._next = (self._next + 1) % 2000

    def other_collection(self) -> str:
        """Return the next of the rare collections, each in turn, so that short runs have them all."""
        self._turn += 1
        return self._others[self._turn % len(self._others)][0]

    def make(self, collection: str, other_did: str, time: str) -> Record:
        """Return a record of ``collection`` written at ``time`` that may refer to ``other_did``."""
        record = self._makers[collection](other_did, time)
        if self._random.random() < 0.004 and "createdAt" in record:
            self._spoil_time(record)
        return record

    def _spoil_time(self, record: Record) -> None:
        """Put a bad createdAt into a record. It is only a claim: the record must be kept."""
        claim = self._random.choice(
            ("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday", "2024-02-30", 0, None)
        )
        if claim == 0:
            del record["createdAt"]
        else:
            record["createdAt"] = claim

    def _subject_post(self, collection: str) -> Callable[[str, str], Record]:
        def make(_did: str, time: str) -> Record:
            uri, cid = self._random.choice(self._posts)
            return {"$type": collection, "subject": {"cid": cid, "uri": uri}, "createdAt": time}

        return make

    @staticmethod
    def _subject_did(collection: str) -> Callable[[str, str], Record]:
        return lambda did, time: {"$type": collection, "subject": did, "createdAt": time}

    @staticmethod
    def _subject_uri(collection: str) -> Callable[[str, str], Record]:
        uri = "at://{}/app.bsky.graph.list/3kztiuvx7zs2n"
        return lambda did, time: {"$type": collection, "subject": uri.format(did), "createdAt": time}

    def _text(self) -> str:
        r = self._random
        return TEXTS[int(r.random() * _ORDINARY)] if r.random() < 0.7 else r.choice(TEXTS)

    def _post(self, did: str, time: str) -> Record:
        r = self._random
        record: Record = {
            "$type": POST,
            "text": self._text(),
            "createdAt": time,
            "langs": [r.choice(("en", "ja", "pt"))],
        }
        kind = r.random()
        if kind < 0.4:
            root, parent = r.choice(self._posts), r.choice(self._posts)
            record["reply"] = {"root": {"uri": root[0], "cid": root[1]}, "parent": {"uri": parent[0], "cid": parent[1]}}
        elif kind < 0.5:
            record["embed"] = {
                "$type": "app.bsky.embed.images",
                "images": [{"alt": self._text(), "image": self._blob(), "aspectRatio": {"width": 3, "height": 4}}],
            }
        elif kind < 0.6:
            record["embed"] = {
                "$type": "app.bsky.embed.external",
                "external": {"uri": "https://example.com/?a=1&b=%20", "title": self._text(), "description": ""},
            }
        elif kind < 0.65:
            record["facets"] = [
                {
                    "index": {"byteStart": 0, "byteEnd": 5},
                    "features": [{"$type": "app.bsky.richtext.facet#mention", "did": did}],
                }
            ]
            record["tags"] = ["art", "🦋"]
        return record

    def _blob(self) -> Record:
        r = self._random
        return {
            "$type": "blob",
            "ref": {"$link": r.choice(_BLOB_CIDS)},
            "mimeType": "image/jpeg",
            "size": r.randint(1000, 999_999),
        }

    def _profile(self, did: str, time: str) -> Record:
        r = self._random
        record: Record = {"$type": PROFILE, "displayName": r.choice(TEXTS)[:64], "description": self._text()[:2560]}
        if r.random() < 0.5:
            record |= {"createdAt": time, "avatar": self._blob(), "pinnedPost": self._strong_ref()}
        if r.random() < 0.2:
            record["labels"] = {
                "$type": "com.atproto.label.defs#selfLabels",
                "values": [{"val": "!no-unauthenticated"}],
            }
        return record

    def _strong_ref(self) -> Record:
        uri, cid = self._random.choice(self._posts)
        return {"uri": uri, "cid": cid}

    def _list(self, did: str, time: str) -> Record:
        purpose = self._random.choice(("modlist", "curatelist"))
        name = self._text()[:64] or "list"
        return {
            "$type": "app.bsky.graph.list",
            "name": name,
            "purpose": f"app.bsky.graph.defs#{purpose}",
            "createdAt": time,
        }

    def _list_item(self, did: str, time: str) -> Record:
        uri = f"at://{did}/app.bsky.graph.list/3kztiuvx7zs2n"
        return {"$type": "app.bsky.graph.listitem", "list": uri, "subject": did, "createdAt": time}

    def _thread_gate(self, did: str, time: str) -> Record:
        rules = [[], [{"$type": "app.bsky.feed.threadgate#mentionRule"}]][self._random.random() < 0.5]
        uri = self._random.choice(self._posts)[0]
        return {
            "$type": "app.bsky.feed.threadgate",
            "post": uri,
            "allow": rules,
            "hiddenReplies": [],
            "createdAt": time,
        }

    def _post_gate(self, did: str, time: str) -> Record:
        uri = self._random.choice(self._posts)[0]
        return {"$type": "app.bsky.feed.postgate", "post": uri, "embeddingRules": [], "createdAt": time}

    def _feed_generator(self, did: str, time: str) -> Record:
        name = self._text()[:24] or "feed"
        return {
            "$type": "app.bsky.feed.generator",
            "did": "did:web:feeds.example.com",
            "displayName": name,
            "createdAt": time,
        }

    def _starter_pack(self, did: str, time: str) -> Record:
        uri = f"at://{did}/app.bsky.graph.list/3kztiuvx7zs2n"
        return {"$type": "app.bsky.graph.starterpack", "name": "pack", "list": uri, "feeds": [], "createdAt": time}

    def _labeler(self, did: str, time: str) -> Record:
        return {"$type": "app.bsky.labeler.service", "policies": {"labelValues": ["spam", "rude"]}, "createdAt": time}

    def _verification(self, did: str, time: str) -> Record:
        return {
            "$type": "app.bsky.graph.verification",
            "subject": did,
            "handle": "someone.example.com",
            "displayName": self._text()[:64],
            "createdAt": time,
        }

    def _declaration(self, did: str, time: str) -> Record:
        return {
            "$type": "chat.bsky.actor.declaration",
            "allowIncoming": self._random.choice(("all", "none", "following")),
        }

    def _status(self, did: str, time: str) -> Record:
        return {"$type": "xyz.statusphere.status", "status": self._random.choice("👍🦋🥳🤔"), "createdAt": time}

    def _nested(self, did: str, time: str) -> Record:
        r = self._random
        inner: Any = {"bytes": {"$bytes": base64.b64encode(r.randbytes(r.randint(0, 40))).decode().rstrip("=")}}
        for level in range(r.randint(2, 20)):
            inner = {"level": level, "list": [inner, None, True, -(2**53) + 1, 2**53 - 1], "": "an empty key"}
        return {
            "$type": "com.example.deepNested",
            "nested": inner,
            "link": {"$link": r.choice(_BLOB_CIDS)},
            "ключ": {"🔑": [[], {}, [[]], {"a": {}}], "a\x00b": "a NUL in a key", 'quote"d': 0},
        }
