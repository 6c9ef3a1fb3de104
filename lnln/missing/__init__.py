"""What goes missing: erasing, its protocols, other damage, and the chance behind it."""
