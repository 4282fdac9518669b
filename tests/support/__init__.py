"""What tests lean on, and the tools that read them."""
