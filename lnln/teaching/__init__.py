"""What chapters need: studies, exercises, explorers, the page with the model."""
