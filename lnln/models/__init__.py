"""The networks: LNLN, the methods that it is compared with, and what they share."""
