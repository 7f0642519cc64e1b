"""The AT Protocol: bytes in, values out. No I/O."""
