"""Commands that train many times: comparison, the paper's exhibits, tuning."""
