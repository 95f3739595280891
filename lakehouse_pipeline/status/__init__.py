"""Tables as people see them: which hours are in what state, and why."""
