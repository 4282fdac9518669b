"""The GraphQL room: someone asks or tells, and gets one answer in one shape."""
