"""A Docker engine without a registry: docker-compose.yml is run, on images that stand in for those that it names.

``python -m tests.containers up`` starts the engine and the services by hand; tests/acceptance/test_containers.py does it
in tests. docs/compose.md says what the stand-ins have in common with the real images, and what they have not.
"""
