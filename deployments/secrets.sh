#!/bin/sh
# Makes the secrets of docker-compose.yaml, one in each file; leaves those alone that are there.
#
#   sh deployments/secrets.sh [FOLDER]       (default: ./secrets)
#
# Only you can enter the folder. The files in it can be read by all, because containers see them with their rights on
# this machine, and run as users that this machine does not know.
set -eu
folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# Whole or not at all: a file that a full disk has cut short would pass for a secret.
make() {
    if [ -e "$folder/$1" ]; then
        echo "$folder/$1 is there already"
    else
        printf '%s\n' "$2" >"$folder/.$1.part"
        chmod 444 "$folder/.$1.part"
        mv "$folder/.$1.part" "$folder/$1"
        echo "$folder/$1 made"
    fi
}

make postgres_password "$(random)"      # PostgreSQL's superuser
make cancellations_database "$(random)" # the owner of each database
make prefect_database "$(random)"
make mlflow_database "$(random)"
make prefect_login "admin:$(random)" # of the API and the UI
make mlflow_password "$(random)"     # of MLflow's user admin
make mlflow_key "$(random)"          # signs MLflow's forms
make api_tokens "hotel $(random)"    # NAME TOKEN, a line for each caller of /predict
make smtp_password ""                # write yours here, where your mail server wants one
