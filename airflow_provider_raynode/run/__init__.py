"""`raynode run`: one run of a DAG on this machine with no services, and its live display in the terminal."""
