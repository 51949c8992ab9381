"""Where reservations come from: tables read by a mapping, the simulator, and the search for either."""
