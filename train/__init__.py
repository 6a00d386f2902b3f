"""From labelled characters to a checkpoint. Imports `hwr_export`, never the reverse; run as `python -m train`."""
