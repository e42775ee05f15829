"""Programs that show how the project is used; run them from the checkout's root."""
