"""The topic and the broker: how they are reached, written, read and judged.

It owns everything that the product asks of Kafka outside of Faust. It never imports Faust or ``streams.postgres``.

- ``client``: address, TLS and password of every client; the wait for a broker that is away, and the errors.
- ``topic``, ``topic_limits``: the topic: created, read without a group, its partitions; its settings judged.
- ``topic_guard``, ``versions``: the watch for a broker that is away or a topic that was deleted; a broker's age.
- ``publisher``: events into acknowledged batches, in order per partition, and the watermarks.
- ``producer``: producers for ready batches, and fast writing of messages for a copy.
- ``oversized``, ``refusals``: a record that the topic cannot hold, and a refusal that is final. Both pure.
- ``watermarks``, ``log_end``: the last watermark of each partition; why a partition is silent.
- ``retention``, ``disk``: the topic outlasts its slowest group; the space on the embedded broker's disk.
- ``groups``, ``ingest_lock``: the members of the workers' group; one ingest per topic.
"""
