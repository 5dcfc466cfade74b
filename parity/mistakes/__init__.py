"""Mistakes: functions from the right Case to the wrong ones, with names."""
