"""How people write settings, read into values: names, the ``.env`` file, addresses.

It never connects, and no error of it repeats an address or a line of the file, because a password may stand there.

- ``brokers``: KAFKA_BOOTSTRAP_SERVERS, with a scheme, quotes, brackets or spaces.
- ``database_url``: DATABASE_URL into an ``Address``; it refuses a password whose end is not clear.
- ``database_words``: the words in the query of DATABASE_URL, as tables.
- ``dotenv_file``: the ``.env`` file in every encoding; a line that cannot be read is an error.
- ``names``: which names in the environment are ours, which are mistyped, which are another program's.
- ``relay_address``: RELAY_URL into the address of a relay's subscribeRepos endpoint.
"""
