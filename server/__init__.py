"""The street door: process start, environment, identity, telemetry, limits, commands, web pages."""
