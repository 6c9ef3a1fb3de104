"""The methods that LNLN is compared with, one module each."""
