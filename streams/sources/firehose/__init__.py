"""com.atproto.sync.subscribeRepos: a relay's firehose, from where a run begins to the publisher."""
