"""What administrators decide about accounts: who may make one, who is invited, and to see what a user
sees."""
