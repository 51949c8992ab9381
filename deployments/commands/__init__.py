"""The commands, by what they are about; `deployments.cli` puts them together."""
