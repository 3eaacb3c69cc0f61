"""Settings: what may be written in models.yaml (`schema`) and how it is read (`load`)."""
