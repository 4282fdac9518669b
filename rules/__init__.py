"""The rules and the words of Sightline: values in, values out; no await, clock, dice or environment."""
