"""The topic, and how it is reached: as a client, as a writer, as one who looks. No Faust."""
