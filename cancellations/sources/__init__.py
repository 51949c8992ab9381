"""Where reservations come from: the public hotel file, the simulator, and the search for either."""
