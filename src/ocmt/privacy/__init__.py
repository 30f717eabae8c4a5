"""What a person may demand: a copy of all that is theirs, and its deletion, with proof. Other rooms come as
ports."""
