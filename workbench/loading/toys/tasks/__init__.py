"""Tasks: random sequences with a known best answer, one file each. `task` says what all of them have; read it first."""
