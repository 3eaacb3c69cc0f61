"""Model weights (`sources`, `pull`, `weights`) and which model a name means (`registry`)."""
