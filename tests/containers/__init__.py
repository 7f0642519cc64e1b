"""A Docker engine without a registry: docker-compose.yml is run, on images that stand in for those that it names.

``python -m tests.containers`` starts the engine, to try things by hand; tests/acceptance/test_containers.py does it in
tests. docs/compose.md says what the stand-ins have in common with the real images, and what they have not.
"""
