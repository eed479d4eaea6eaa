"""Real servers for tests: scripted providers, PostgreSQL, Valkey and a JWKS publisher.

Nothing in here patches a library. A test points the code under test at a loopback port and talks to a
server that behaves, or misbehaves, exactly as scripted.
"""
