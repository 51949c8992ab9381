"""What the system does, one file each: domain rules over ports, no adapter named."""
