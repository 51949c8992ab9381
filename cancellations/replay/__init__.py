"""What would have happened: policies and recipes replayed day by day over bookings of the past."""
