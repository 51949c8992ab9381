#!/bin/sh
# Runs once, on an empty volume: three databases, each with an owner that sees no other.
# Passwords go from file to server; none stands on a command line or in the server's log.
set -eu
for name in cancellations prefect mlflow; do
    NAME=$name PASSWORD_FILE=${SECRETS_FOLDER:-/run/secrets}/${name}_database \
        psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
\set name `printf %s "$NAME"`
\set password `cat "$PASSWORD_FILE"`
SET log_min_error_statement = panic;
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
