"""How the embedded models were made: stories, training and export. Not in the wheel, and lcpu never imports it."""
