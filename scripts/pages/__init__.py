"""Pages to prove with: a form's sheet, filled with held-out handwriting and scanned as a scanner would, all seeded."""
