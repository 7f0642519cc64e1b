"""The process behind ``faust -A streams.agents worker``: its start, slices into transactions, what runs beside."""
