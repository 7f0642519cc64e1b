"""How people write settings, read into values: names, the .env file, addresses. Pure but for that file."""
