-- Typed views over the records: one for each record type of app.bsky and chat.bsky, with the lexicon's fields as columns.
-- The records are written by strangers: a value of the wrong type is NULL, never an error. The optional indexes are built on
-- exactly these expressions (streams/postgres/indexes.py).

-- A string.
CREATE FUNCTION lex_text(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' END;

-- A name: a DID, a URI, a CID. Longer than any that exists it is NULL: no index holds more than 2,704 bytes, and one record of a
-- stranger must neither stop an index from being built nor a row from being written.
CREATE FUNCTION lex_name(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'string' AND octet_length(value #>> '{}') <= 2600 THEN value #>> '{}' END;

-- A whole number that a bigint holds.
CREATE FUNCTION lex_integer(value jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'number' THEN
    CASE WHEN value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 AND value::numeric = trunc(value::numeric)
    THEN value::numeric::bigint END END;

CREATE FUNCTION lex_boolean(value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'boolean' THEN value::boolean END;

-- A datetime as the lexicon has it (RFC 3339 with a zone), in the years 1 to 9999. Checked before it is cast, because an
-- exception cannot be caught in a parallel worker. Immutable: with a zone in the text, no setting has a say.
CREATE FUNCTION lex_datetime(value jsonb) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    said text COLLATE "C" := CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' END;
    moment timestamptz;
BEGIN
    IF said !~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,20})?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])$'
       OR said LIKE '0000%' OR said LIKE '%-00:00' THEN
        RETURN NULL;
    END IF;
    IF substr(said, 9, 2) > '28' AND substr(said, 9, 2)::integer > (
        CASE substr(said, 6, 2)
            WHEN '02' THEN 28 + (substr(said, 1, 4)::integer % 4 = 0 AND (
                substr(said, 1, 4)::integer % 100 <> 0 OR substr(said, 1, 4)::integer % 400 = 0))::integer
            WHEN '04' THEN 30 WHEN '06' THEN 30 WHEN '09' THEN 30 WHEN '11' THEN 30 ELSE 31 END)
    THEN
        RETURN NULL;
    END IF;
    moment := said::timestamptz;
    IF moment >= '0001-01-01 00:00:00+00' AND moment < '10000-01-01 00:00:00+00' THEN
        RETURN moment;
    END IF;
    RETURN NULL;
END $$;

-- An array of strings, and of nothing else; none of them longer than an index holds.
CREATE FUNCTION lex_texts(value jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'array' AND NOT EXISTS (
        SELECT FROM jsonb_array_elements(CASE jsonb_typeof(value) WHEN 'array' THEN value END) AS held (item)
        WHERE jsonb_typeof(item) <> 'string' OR octet_length(item #>> '{}') > 2600)
    THEN ARRAY(SELECT jsonb_array_elements_text(CASE jsonb_typeof(value) WHEN 'array' THEN value END)) END;

-- The CID of a blob (also of the form that blobs had once), or of a link.
CREATE FUNCTION lex_cid(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'object' THEN
    coalesce(lex_text(value -> 'ref' -> '$link'), lex_text(value -> '$link'), lex_text(value -> 'cid')) END;

CREATE FUNCTION lex_object(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'object' THEN value END;

CREATE FUNCTION lex_array(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'array' THEN value END;

-- The AT URI of what a post quotes.
CREATE FUNCTION lex_quote(embed jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE lex_text(embed -> '$type')
    WHEN 'app.bsky.embed.record' THEN lex_name(embed -> 'record' -> 'uri')
    WHEN 'app.bsky.embed.recordWithMedia' THEN lex_name(embed -> 'record' -> 'record' -> 'uri') END;

-- The views: what streams/postgres/lexicon_view.py makes of streams/lexicons.

CREATE VIEW "posts" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "author_did",
    rkey,
    cid,
    lex_text(record -> 'text') AS "text",
    lex_array(record -> 'entities') AS "entities",
    lex_array(record -> 'facets') AS "facets",
    lex_name(record -> 'reply' -> 'parent' -> 'uri') COLLATE "C" AS "parent_uri",
    lex_name(record -> 'reply' -> 'parent' -> 'cid') COLLATE "C" AS "parent_cid",
    lex_name(record -> 'reply' -> 'root' -> 'uri') COLLATE "C" AS "root_uri",
    lex_name(record -> 'reply' -> 'root' -> 'cid') COLLATE "C" AS "root_cid",
    lex_object(record -> 'embed') AS "embed",
    lex_texts(record -> 'langs') AS "langs",
    lex_object(record -> 'labels') AS "labels",
    lex_texts(record -> 'tags') AS "tags",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.feed.post';
COMMENT ON VIEW "posts" IS 'app.bsky.feed.post: Record containing a Bluesky post.';
COMMENT ON COLUMN "posts"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "posts"."author_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "posts"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "posts"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "posts"."text" IS 'The primary post content. May be an empty string, if there are embeds.';
COMMENT ON COLUMN "posts"."entities" IS 'DEPRECATED: replaced by app.bsky.richtext.facet.';
COMMENT ON COLUMN "posts"."facets" IS 'Annotations of text (mentions, URLs, hashtags, etc)';
COMMENT ON COLUMN "posts"."langs" IS 'Indicates human language of post primary text content.';
COMMENT ON COLUMN "posts"."labels" IS 'Self-label values for this post. Effectively content warnings.';
COMMENT ON COLUMN "posts"."tags" IS 'Additional hashtags, in addition to any included in post text and facets.';
COMMENT ON COLUMN "posts"."created_at" IS 'Client-declared timestamp when this post was originally created.';
COMMENT ON COLUMN "posts"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "posts"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "likes" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "user_did",
    rkey,
    cid,
    lex_name(record -> 'subject' -> 'uri') COLLATE "C" AS "post_uri",
    lex_name(record -> 'subject' -> 'cid') COLLATE "C" AS "subject_cid",
    lex_name(record -> 'via' -> 'uri') COLLATE "C" AS "via",
    lex_name(record -> 'via' -> 'cid') COLLATE "C" AS "via_cid",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.feed.like';
COMMENT ON VIEW "likes" IS 'app.bsky.feed.like: Record declaring a ''like'' of a piece of subject content.';
COMMENT ON COLUMN "likes"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "likes"."user_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "likes"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "likes"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "likes"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "likes"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "likes"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "reposts" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "user_did",
    rkey,
    cid,
    lex_name(record -> 'subject' -> 'uri') COLLATE "C" AS "post_uri",
    lex_name(record -> 'subject' -> 'cid') COLLATE "C" AS "subject_cid",
    lex_name(record -> 'via' -> 'uri') COLLATE "C" AS "via",
    lex_name(record -> 'via' -> 'cid') COLLATE "C" AS "via_cid",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.feed.repost';
COMMENT ON VIEW "reposts" IS 'app.bsky.feed.repost: Record representing a ''repost'' of an existing Bluesky post.';
COMMENT ON COLUMN "reposts"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "reposts"."user_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "reposts"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "reposts"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "reposts"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "reposts"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "reposts"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "follows" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "follower_did",
    rkey,
    cid,
    lex_name(record -> 'subject') COLLATE "C" AS "following_did",
    lex_name(record -> 'via' -> 'uri') COLLATE "C" AS "via",
    lex_name(record -> 'via' -> 'cid') COLLATE "C" AS "via_cid",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.follow';
COMMENT ON VIEW "follows" IS 'app.bsky.graph.follow: Record declaring a social ''follow'' relationship of another account. Duplicate follows will be ignored by the AppView.';
COMMENT ON COLUMN "follows"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "follows"."follower_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "follows"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "follows"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "follows"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "follows"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "follows"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "blocks" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "blocker_did",
    rkey,
    cid,
    lex_name(record -> 'subject') COLLATE "C" AS "blocked_did",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.block';
COMMENT ON VIEW "blocks" IS 'app.bsky.graph.block: Record declaring a ''block'' relationship against another account. NOTE: blocks are public in Bluesky; see blog posts for details.';
COMMENT ON COLUMN "blocks"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "blocks"."blocker_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "blocks"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "blocks"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "blocks"."blocked_did" IS 'DID of the account to be blocked.';
COMMENT ON COLUMN "blocks"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "blocks"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "blocks"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "lists" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "creator_did",
    rkey,
    cid,
    lex_text(record -> 'purpose') AS "purpose",
    lex_text(record -> 'name') AS "name",
    lex_text(record -> 'description') AS "description",
    lex_array(record -> 'descriptionFacets') AS "description_facets",
    lex_cid(record -> 'avatar') COLLATE "C" AS "avatar",
    lex_object(record -> 'labels') AS "labels",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.list';
COMMENT ON VIEW "lists" IS 'app.bsky.graph.list: Record representing a list of accounts (actors). Scope includes both moderation-oriented lists and curration-oriented lists.';
COMMENT ON COLUMN "lists"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "lists"."creator_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "lists"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "lists"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "lists"."purpose" IS 'Defines the purpose of the list (aka, moderation-oriented or curration-oriented)';
COMMENT ON COLUMN "lists"."name" IS 'Display name for list; can not be empty.';
COMMENT ON COLUMN "lists"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "lists"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "lists"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "list_items" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "creator_did",
    rkey,
    cid,
    lex_name(record -> 'subject') COLLATE "C" AS "subject_did",
    lex_name(record -> 'list') COLLATE "C" AS "list_uri",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.listitem';
COMMENT ON VIEW "list_items" IS 'app.bsky.graph.listitem: Record representing an account''s inclusion on a specific list. The AppView will ignore duplicate listitem records.';
COMMENT ON COLUMN "list_items"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "list_items"."creator_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "list_items"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "list_items"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "list_items"."subject_did" IS 'The account which is included on the list.';
COMMENT ON COLUMN "list_items"."list_uri" IS 'Reference (AT-URI) to the list record (app.bsky.graph.list).';
COMMENT ON COLUMN "list_items"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "list_items"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "list_items"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "list_blocks" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "blocker_did",
    rkey,
    cid,
    lex_name(record -> 'subject') COLLATE "C" AS "list_uri",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.listblock';
COMMENT ON VIEW "list_blocks" IS 'app.bsky.graph.listblock: Record representing a block relationship against an entire an entire list of accounts (actors).';
COMMENT ON COLUMN "list_blocks"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "list_blocks"."blocker_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "list_blocks"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "list_blocks"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "list_blocks"."list_uri" IS 'Reference (AT-URI) to the mod list record.';
COMMENT ON COLUMN "list_blocks"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "list_blocks"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "list_blocks"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "starter_packs" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "creator_did",
    rkey,
    cid,
    lex_text(record -> 'name') AS "name",
    lex_text(record -> 'description') AS "description",
    lex_array(record -> 'descriptionFacets') AS "description_facets",
    lex_name(record -> 'list') COLLATE "C" AS "list_uri",
    lex_array(record -> 'feeds') AS "feeds",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.starterpack';
COMMENT ON VIEW "starter_packs" IS 'app.bsky.graph.starterpack: Record defining a starter pack of actors and feeds for new users.';
COMMENT ON COLUMN "starter_packs"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "starter_packs"."creator_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "starter_packs"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "starter_packs"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "starter_packs"."name" IS 'Display name for starter pack; can not be empty.';
COMMENT ON COLUMN "starter_packs"."list_uri" IS 'Reference (AT-URI) to the list record.';
COMMENT ON COLUMN "starter_packs"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "starter_packs"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "starter_packs"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "verifications" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "issuer_did",
    rkey,
    cid,
    lex_name(record -> 'subject') COLLATE "C" AS "subject_did",
    lex_name(record -> 'handle') COLLATE "C" AS "handle",
    lex_text(record -> 'displayName') AS "display_name",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.verification';
COMMENT ON VIEW "verifications" IS 'app.bsky.graph.verification: Record declaring a verification relationship between two accounts. Verifications are only considered valid by an app if issued by an account the app considers trusted.';
COMMENT ON COLUMN "verifications"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "verifications"."issuer_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "verifications"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "verifications"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "verifications"."subject_did" IS 'DID of the subject the verification applies to.';
COMMENT ON COLUMN "verifications"."handle" IS 'Handle of the subject the verification applies to at the moment of verifying, which might not be the same at the time of viewing. The verification is only valid if the current handle matches the one at the time of verifying.';
COMMENT ON COLUMN "verifications"."display_name" IS 'Display name of the subject the verification applies to at the moment of verifying, which might not be the same at the time of viewing. The verification is only valid if the current displayName matches the one at the time of verifying.';
COMMENT ON COLUMN "verifications"."created_at" IS 'Date of when the verification was created.';
COMMENT ON COLUMN "verifications"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "verifications"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "feed_generators" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "creator_did",
    rkey,
    cid,
    lex_name(record -> 'did') COLLATE "C" AS "did",
    lex_text(record -> 'displayName') AS "display_name",
    lex_text(record -> 'description') AS "description",
    lex_array(record -> 'descriptionFacets') AS "description_facets",
    lex_cid(record -> 'avatar') COLLATE "C" AS "avatar",
    lex_boolean(record -> 'acceptsInteractions') AS "accepts_interactions",
    lex_object(record -> 'labels') AS "labels",
    lex_text(record -> 'contentMode') AS "content_mode",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.feed.generator';
COMMENT ON VIEW "feed_generators" IS 'app.bsky.feed.generator: Record declaring of the existence of a feed generator, and containing metadata about it. The record can exist in any repository.';
COMMENT ON COLUMN "feed_generators"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "feed_generators"."creator_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "feed_generators"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "feed_generators"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "feed_generators"."accepts_interactions" IS 'Declaration that a feed accepts feedback interactions from a client through app.bsky.feed.sendInteractions';
COMMENT ON COLUMN "feed_generators"."labels" IS 'Self-label values';
COMMENT ON COLUMN "feed_generators"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "feed_generators"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "feed_generators"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "thread_gates" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "author_did",
    rkey,
    cid,
    lex_name(record -> 'post') COLLATE "C" AS "post_uri",
    lex_array(record -> 'allow') AS "allow",
    lex_texts(record -> 'hiddenReplies') AS "hidden_replies",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.feed.threadgate';
COMMENT ON VIEW "thread_gates" IS 'app.bsky.feed.threadgate: Record defining interaction gating rules for a thread (aka, reply controls). The record key (rkey) of the threadgate record must match the record key of the thread''s root post, and that record must be in the same repository.';
COMMENT ON COLUMN "thread_gates"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "thread_gates"."author_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "thread_gates"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "thread_gates"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "thread_gates"."post_uri" IS 'Reference (AT-URI) to the post record.';
COMMENT ON COLUMN "thread_gates"."allow" IS 'List of rules defining who can reply to this post. If value is an empty array, no one can reply. If value is undefined, anyone can reply.';
COMMENT ON COLUMN "thread_gates"."hidden_replies" IS 'List of hidden reply URIs.';
COMMENT ON COLUMN "thread_gates"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "thread_gates"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "thread_gates"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "post_gates" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "author_did",
    rkey,
    cid,
    lex_name(record -> 'post') COLLATE "C" AS "post_uri",
    lex_texts(record -> 'detachedEmbeddingUris') AS "detached_embedding_uris",
    lex_array(record -> 'embeddingRules') AS "embedding_rules",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.feed.postgate';
COMMENT ON VIEW "post_gates" IS 'app.bsky.feed.postgate: Record defining interaction rules for a post. The record key (rkey) of the postgate record must match the record key of the post, and that record must be in the same repository.';
COMMENT ON COLUMN "post_gates"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "post_gates"."author_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "post_gates"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "post_gates"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "post_gates"."post_uri" IS 'Reference (AT-URI) to the post record.';
COMMENT ON COLUMN "post_gates"."detached_embedding_uris" IS 'List of AT-URIs embedding this post that the author has detached from.';
COMMENT ON COLUMN "post_gates"."embedding_rules" IS 'List of rules defining who can embed this post. If value is an empty array or is undefined, no particular rules apply and anyone can embed.';
COMMENT ON COLUMN "post_gates"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "post_gates"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "post_gates"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "profiles" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did,
    rkey,
    cid,
    lex_text(record -> 'displayName') AS "display_name",
    lex_text(record -> 'description') AS "description",
    lex_text(record -> 'pronouns') AS "pronouns",
    lex_name(record -> 'website') COLLATE "C" AS "website",
    lex_cid(record -> 'avatar') COLLATE "C" AS "avatar",
    lex_cid(record -> 'banner') COLLATE "C" AS "banner",
    lex_object(record -> 'labels') AS "labels",
    lex_name(record -> 'joinedViaStarterPack' -> 'uri') COLLATE "C" AS "joined_via_starter_pack_uri",
    lex_name(record -> 'joinedViaStarterPack' -> 'cid') COLLATE "C" AS "joined_via_starter_pack_cid",
    lex_name(record -> 'pinnedPost' -> 'uri') COLLATE "C" AS "pinned_post_uri",
    lex_name(record -> 'pinnedPost' -> 'cid') COLLATE "C" AS "pinned_post_cid",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.actor.profile' AND rkey = 'self';
COMMENT ON VIEW "profiles" IS 'app.bsky.actor.profile: A declaration of a Bluesky account profile.';
COMMENT ON COLUMN "profiles"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "profiles"."did" IS 'The account that holds the record.';
COMMENT ON COLUMN "profiles"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "profiles"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "profiles"."description" IS 'Free-form profile description text.';
COMMENT ON COLUMN "profiles"."pronouns" IS 'Free-form pronouns text.';
COMMENT ON COLUMN "profiles"."avatar" IS 'Small image to be displayed next to posts from account. AKA, ''profile picture''';
COMMENT ON COLUMN "profiles"."banner" IS 'Larger horizontal image to display behind profile view.';
COMMENT ON COLUMN "profiles"."labels" IS 'Self-label values, specific to the Bluesky application, on the overall account.';
COMMENT ON COLUMN "profiles"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "profiles"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "profiles"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "statuses" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did,
    rkey,
    cid,
    lex_text(record -> 'status') AS "status",
    lex_object(record -> 'embed') AS "embed",
    lex_integer(record -> 'durationMinutes') AS "duration_minutes",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.actor.status' AND rkey = 'self';
COMMENT ON VIEW "statuses" IS 'app.bsky.actor.status: A declaration of a Bluesky account status.';
COMMENT ON COLUMN "statuses"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "statuses"."did" IS 'The account that holds the record.';
COMMENT ON COLUMN "statuses"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "statuses"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "statuses"."status" IS 'The status for the account.';
COMMENT ON COLUMN "statuses"."embed" IS 'An optional embed associated with the status.';
COMMENT ON COLUMN "statuses"."duration_minutes" IS 'The duration of the status in minutes. Applications can choose to impose minimum and maximum limits.';
COMMENT ON COLUMN "statuses"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "statuses"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "statuses"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "content_visibility_declarations" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did,
    rkey,
    cid,
    lex_boolean(record -> 'hideFromAlgorithmicRecommendations') AS "hide_from_algorithmic_recommendations",
    NULL::timestamptz AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.actor.contentVisibilityDeclaration' AND rkey = 'self';
COMMENT ON VIEW "content_visibility_declarations" IS 'app.bsky.actor.contentVisibilityDeclaration: A declaration of an account''s preferences for appearing in content discovery surfaces.';
COMMENT ON COLUMN "content_visibility_declarations"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "content_visibility_declarations"."did" IS 'The account that holds the record.';
COMMENT ON COLUMN "content_visibility_declarations"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "content_visibility_declarations"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "content_visibility_declarations"."hide_from_algorithmic_recommendations" IS 'Whether the account requests that its posts be hidden from algorithmic recommendations. Consumers must treat a missing record as false.';
COMMENT ON COLUMN "content_visibility_declarations"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "content_visibility_declarations"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "content_visibility_declarations"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "reference_list_opt_outs" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did,
    rkey,
    cid,
    lex_name(record -> 'subject') COLLATE "C" AS "list_uri",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.graph.referencelistoptout';
COMMENT ON VIEW "reference_list_opt_outs" IS 'app.bsky.graph.referencelistoptout: Record requesting that its author be omitted from the public presentation of a reference list. This record is only enforced when the subject list''s current purpose is app.bsky.graph.defs#referencelist. AppView indexes at most one record per actor and list pair, and ignores duplicate records.';
COMMENT ON COLUMN "reference_list_opt_outs"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "reference_list_opt_outs"."did" IS 'The account that holds the record.';
COMMENT ON COLUMN "reference_list_opt_outs"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "reference_list_opt_outs"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "reference_list_opt_outs"."list_uri" IS 'Canonical, DID-based AT URI of the app.bsky.graph.list record from which the author requests omission.';
COMMENT ON COLUMN "reference_list_opt_outs"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "reference_list_opt_outs"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "reference_list_opt_outs"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "labeler_services" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did AS "creator_did",
    rkey,
    cid,
    lex_object(record -> 'policies') AS "policies",
    lex_object(record -> 'labels') AS "labels",
    lex_texts(record -> 'reasonTypes') AS "reason_types",
    lex_texts(record -> 'subjectTypes') AS "subject_types",
    lex_texts(record -> 'subjectCollections') AS "subject_collections",
    lex_datetime(record -> 'createdAt') AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.labeler.service' AND rkey = 'self';
COMMENT ON VIEW "labeler_services" IS 'app.bsky.labeler.service: A declaration of the existence of labeler service.';
COMMENT ON COLUMN "labeler_services"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "labeler_services"."creator_did" IS 'The account that holds the record.';
COMMENT ON COLUMN "labeler_services"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "labeler_services"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "labeler_services"."reason_types" IS 'The set of report reason ''codes'' which are in-scope for this service to review and action. These usually align to policy categories. If not defined (distinct from empty array), all reason types are allowed.';
COMMENT ON COLUMN "labeler_services"."subject_types" IS 'The set of subject types (account, record, etc) this service accepts reports on.';
COMMENT ON COLUMN "labeler_services"."subject_collections" IS 'Set of record types (collection NSIDs) which can be reported to this service. If not defined (distinct from empty array), default is any record type.';
COMMENT ON COLUMN "labeler_services"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "labeler_services"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "labeler_services"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "chat_declarations" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did,
    rkey,
    cid,
    lex_text(record -> 'allowIncoming') AS "allow_incoming",
    lex_text(record -> 'allowGroupInvites') AS "allow_group_invites",
    NULL::timestamptz AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'chat.bsky.actor.declaration' AND rkey = 'self';
COMMENT ON VIEW "chat_declarations" IS 'chat.bsky.actor.declaration: A declaration of a Bluesky chat account.';
COMMENT ON COLUMN "chat_declarations"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "chat_declarations"."did" IS 'The account that holds the record.';
COMMENT ON COLUMN "chat_declarations"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "chat_declarations"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "chat_declarations"."allow_group_invites" IS 'Declaration about group chat invitation preferences for the record owner.';
COMMENT ON COLUMN "chat_declarations"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "chat_declarations"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "chat_declarations"."rev" IS 'The repository''s revision that made this version.';

CREATE VIEW "notification_declarations" AS
SELECT
    'at://' || did || '/' || collection || '/' || rkey AS "uri",
    did,
    rkey,
    cid,
    lex_text(record -> 'allowSubscriptions') AS "allow_subscriptions",
    NULL::timestamptz AS "created_at",
    indexed_at,
    rev
FROM visible_records
WHERE collection = 'app.bsky.notification.declaration' AND rkey = 'self';
COMMENT ON VIEW "notification_declarations" IS 'app.bsky.notification.declaration: A declaration of the user''s choices related to notifications that can be produced by them.';
COMMENT ON COLUMN "notification_declarations"."uri" IS 'The record''s AT URI.';
COMMENT ON COLUMN "notification_declarations"."did" IS 'The account that holds the record.';
COMMENT ON COLUMN "notification_declarations"."rkey" IS 'The record''s key in its collection.';
COMMENT ON COLUMN "notification_declarations"."cid" IS 'The CID of the record''s present version.';
COMMENT ON COLUMN "notification_declarations"."allow_subscriptions" IS 'A declaration of the user''s preference for allowing activity subscriptions from other users. Absence of a record implies ''followers''.';
COMMENT ON COLUMN "notification_declarations"."created_at" IS 'The time that the record claims; NULL where it has none that can be read.';
COMMENT ON COLUMN "notification_declarations"."indexed_at" IS 'When the record was written here.';
COMMENT ON COLUMN "notification_declarations"."rev" IS 'The repository''s revision that made this version.';

-- Accounts: a visible profile with its account's handle and status, and the visible accounts without a profile.
CREATE VIEW users AS
SELECT p.did, a.handle, coalesce(a.active, true) AS active, a.status, p.cid AS profile_cid, 
    p.display_name, p.description, p.pronouns, p.website, p.avatar, p.banner, p.labels, p.joined_via_starter_pack_uri, p.joined_via_starter_pack_cid, p.pinned_post_uri, p.pinned_post_cid,
    p.created_at, p.indexed_at, p.rev
FROM profiles AS p LEFT JOIN actors AS a ON a.did = p.did
UNION ALL
SELECT a.did, a.handle, coalesce(a.active, true), a.status, NULL, 
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL
FROM actors AS a
WHERE NOT a.hidden AND NOT EXISTS (SELECT FROM profiles AS p WHERE p.did = a.did);
COMMENT ON VIEW users IS 'Accounts that are to be shown, with their profile where they have one.';
COMMENT ON COLUMN users.handle IS 'The handle of the last #identity event; NULL where none was seen.';
COMMENT ON COLUMN users.active IS 'What the last #account event said; true where none was seen.';
COMMENT ON COLUMN users.status IS 'Why the account is not active, or that it is throttled or desynchronized.';
COMMENT ON COLUMN users.profile_cid IS 'The CID of the profile record; NULL where there is none.';

-- Counts that are asked for often. Filled, and brought up to date, by `faust -A streams.agents aggregates refresh`.
CREATE MATERIALIZED VIEW post_counts AS
SELECT post_uri, sum(likes)::bigint AS likes, sum(reposts)::bigint AS reposts, sum(replies)::bigint AS replies,
       sum(quotes)::bigint AS quotes
FROM (
    SELECT post_uri, count(DISTINCT user_did) AS likes, 0 AS reposts, 0 AS replies, 0 AS quotes FROM likes GROUP BY 1
    UNION ALL
    SELECT post_uri, 0, count(DISTINCT user_did), 0, 0 FROM reposts GROUP BY 1
    UNION ALL
    SELECT parent_uri, 0, 0, count(*), 0 FROM posts GROUP BY 1
    UNION ALL
    SELECT lex_quote(embed) COLLATE "C", 0, 0, 0, count(*) FROM posts
    WHERE lex_quote(embed) LIKE 'at://%/app.bsky.feed.post/%' GROUP BY 1
) AS counted
WHERE post_uri IS NOT NULL
GROUP BY post_uri
WITH NO DATA;
CREATE UNIQUE INDEX post_counts_key ON post_counts (post_uri);
COMMENT ON MATERIALIZED VIEW post_counts IS 'Likes and reposts (each account once), replies and quotes of every post that has any, as of the last refresh.';

CREATE MATERIALIZED VIEW follow_counts AS
SELECT did, sum(followers)::bigint AS followers, sum(following)::bigint AS following
FROM (
    SELECT following_did AS did, count(DISTINCT follower_did) AS followers, 0 AS following FROM follows GROUP BY 1
    UNION ALL
    SELECT follower_did, 0, count(DISTINCT following_did) FROM follows GROUP BY 1
) AS counted
WHERE did IS NOT NULL
GROUP BY did
WITH NO DATA;
CREATE UNIQUE INDEX follow_counts_key ON follow_counts (did);
COMMENT ON MATERIALIZED VIEW follow_counts IS 'Followers and followed accounts, each once, as of the last refresh.';
