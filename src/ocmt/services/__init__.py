"""The processes: which rooms each of them opens. Read this folder first."""
