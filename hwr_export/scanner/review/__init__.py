"""A folder of results -> fields that were referred, one after another before a person -> answers, durable at once."""
