"""Files of features that are laid out otherwise, brought into the layout of MMSA."""
