"""Every setting is exercised by a test that is named here.

That it stands in README, compose and `config show` is tested beside those: test_readme, test_compose,
test_configuration.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streams.settings import Settings

PROJECT = Path(__file__).resolve().parents[3]

_SETTINGS = "unit/test_settings.py::"
_EFFECT = "integration/test_settings_effect.py::"

#: setting -> the test that shows what it does.
EXERCISED = {
    "backfill_days": "acceptance/test_workers.py::test_the_first_worker_starts_the_ingest_and_takes_it_along",
    "relay_url": "acceptance/test_errors.py::test_another_relay_than_the_topics",
    "backfill_collections": "integration/test_rebuild.py::"
    "test_a_narrower_filter_and_an_account_deleted_since_are_explained",
    "ingest_collections": f"{_EFFECT}test_what_the_ingest_is_told_to_keep_out_is_not_in_the_topic",
    "worker_id": "acceptance/test_workers.py::test_the_first_worker_starts_the_ingest_and_takes_it_along",
    "backfill_profile": f"{_SETTINGS}test_a_profile_sets_all_five",
    "backfill_batch_size": "acceptance/test_pace.py::test_the_pace_is_exact",
    "backfill_batch_delay_ms": "acceptance/test_pace.py::test_the_pace_is_exact",
    "backfill_max_concurrent": "acceptance/test_pace.py::test_as_many_transactions_at_once_as_max_concurrent",
    "backfill_max_memory_mb": f"{_EFFECT}test_the_memory_limit_and_the_web_address_are_as_told",
    "backfill_use_idle": "acceptance/test_pace.py::test_the_pace_is_exact",
    "kafka_bootstrap_servers": "acceptance/test_errors.py::test_somebody_is_away",
    "kafka_topic": "integration/test_ingest.py::test_one_ingest_holds_a_topic",
    "kafka_partitions": f"{_EFFECT}test_a_new_topic_is_as_the_settings_say",
    "kafka_replication": f"{_EFFECT}test_a_new_topic_is_as_the_settings_say",
    "kafka_retention_hours": f"{_EFFECT}test_a_new_topic_is_as_the_settings_say",
    "kafka_security_protocol": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "kafka_sasl_mechanism": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "kafka_sasl_username": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "kafka_sasl_password": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "kafka_ssl_cafile": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "kafka_ssl_certfile": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "kafka_ssl_keyfile": "acceptance/test_secured_kafka.py::test_everything_goes_through",
    "database_url": "acceptance/test_errors.py::test_the_database_is_missing",
    "sink_schema": "integration/test_migrations.py::",
    "sink_group": f"{_SETTINGS}test_another_group_has_its_own_cursor",
    "ingest_idle_seconds": f"{_EFFECT}test_a_quiet_relay_is_at_its_head_after_the_idle_time",
    "ingest_busy_mb_per_s": "acceptance/test_pace.py::"
    "test_the_ingest_keeps_to_its_budget_and_takes_what_the_window_demands",
    "worker_web_bind": f"{_EFFECT}test_the_memory_limit_and_the_web_address_are_as_told",
    "worker_web_port": "acceptance/test_web.py::test_the_web_port_is_loopback_and_shows_no_tables",
    "ingest_web_bind": "acceptance/test_web.py::test_the_web_port_is_loopback_and_shows_no_tables",
    "ingest_web_port": "acceptance/test_web.py::test_the_web_port_is_loopback_and_shows_no_tables",
    "log_format": f"{_EFFECT}test_log_lines_are_as_the_settings_say",
    "log_level": f"{_EFFECT}test_log_lines_are_as_the_settings_say",
    "local_dir": f"{_EFFECT}test_the_embedded_stack_is_looked_for_in_its_folder",
}


def test_no_setting_is_left_out() -> None:
    assert EXERCISED.keys() == set(Settings.model_fields)


@pytest.mark.parametrize("name", sorted(EXERCISED))
def test_its_test_exists_and_is_about_it(name: str) -> None:
    place, _, test = EXERCISED[name].partition("::")
    text = (PROJECT / "tests" / place).read_text()
    assert re.search(rf"^(async )?def {test}\(", text, re.M) if test else "def test_" in text
    assert re.search(rf"\b({name}|{name.upper()})\b", text), f"{place} does not mention {name}"
