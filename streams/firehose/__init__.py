"""The AT Protocol side: frames decoded into events, and the relay they come from."""
