"""Archive -> slot -> self-tested -> active. Of two slots, so that a device always has a whole, verified release."""
