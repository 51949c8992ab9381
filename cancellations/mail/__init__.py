"""Mails to the owners: what they say, how they look, how they leave. The only place that speaks SMTP."""
