"""Links from a task to the pages of Ray."""
