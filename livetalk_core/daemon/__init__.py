"""N ranks as one machine: a supervisor that owns them and a client that feeds them sound and reads frames."""
