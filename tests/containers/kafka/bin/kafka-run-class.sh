#!/usr/bin/env bash
exec java ${KAFKA_HEAP_OPTS:--Xmx256M} -XX:+UseG1GC -Djava.awt.headless=true \
  -Dlog4j2.configurationFile="${KAFKA_LOG4J:-/etc/kafka/docker/tools-log4j2.yaml}" -cp "/opt/kafka/libs/*" "$@"
