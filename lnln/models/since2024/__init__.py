"""Methods that came after LNLN, one module each."""
