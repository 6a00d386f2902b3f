"""Pages from a scanner to whoever wants what is written on them: spool, sinks, and the service that drives both."""
