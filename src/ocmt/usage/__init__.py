"""What was used: the ledger of model calls, and the limits that are checked against it.

The ledger is written by the broker and read by chat and by people. It may not call a provider, and it knows
no prices yet. A call is in the ledger before it is made, so that a killed process cannot lose one.
"""
