"""systemd: the services of the system or of a user, over ``systemctl`` and ``journalctl``."""
